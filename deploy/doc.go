// Package deploy is the root of the module for everything that runs Postroom
// as a whole, beginning with the demo. It holds no code: it makes `go build
// ./...` check the module instead of writing a binary where the folder demo
// lies.
package deploy
