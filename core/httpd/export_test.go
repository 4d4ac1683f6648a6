package httpd

// Remembered is how many addresses the guard counts failures of.
func Remembered(g *Guard) int { return len(g.failures.by) }
