package system

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

// heapGoal is how large the heap may become before garbage is collected.
func heapGoal() uint64 {
	runtime.GC()
	s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func TestCollectionsAreRareUnlessTheOperatorHasSaidHowOften(t *testing.T) {
	t.Cleanup(func() { ballast = nil })
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv("GOGC", "")
		t.Setenv("GOMEMLIMIT", "")
		t.Setenv(name, "100")
		Ballast()
		if ballast != nil {
			t.Errorf("with %s set there is a ballast", name)
		}
	}
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	before := heapGoal()
	Ballast()
	if after := heapGoal(); after < before+ballastSize {
		t.Errorf("the heap may become %d bytes large, and %d without the ballast", after, before)
	}
}
