//go:build race

package sim

// raceDetector is on: everything takes several times as long.
const raceDetector = true
