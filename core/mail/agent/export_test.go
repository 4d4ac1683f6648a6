package agent

// CrashAt has every action stop with fn's error when it reaches a point, as a
// crash there would stop it.
func (a *Agent) CrashAt(fn func(point, actionID string) error) { a.crash = fn }
