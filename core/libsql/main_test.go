package libsql_test

import (
	"os"
	"testing"

	"github.com/postroom/postroom/core/libsql"
)

func TestMain(m *testing.M) {
	libsql.Children["enqueue"] = childEnqueue
	libsql.RunChild()
	os.Exit(m.Run())
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
