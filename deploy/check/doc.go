// Package check holds the tests of deploy's files that need libraries of
// others: those of Compose and of Kubernetes, whose own types say what a file
// may contain. It is a module of its own, so that nothing shipped depends on
// them.
package check
