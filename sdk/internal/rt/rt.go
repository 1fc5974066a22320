// Package rt is what package sdk runs on. In a guest (GOOS=wasip1) it is the
// binding wasm/guest; elsewhere it is an in-process runtime with the same
// functions, so that a program with tasks can be tested and debugged as an
// ordinary Go program. There, tasks are goroutines: nothing is sandboxed, CPU
// and memory are not accounted, and a task that ignores its context runs on
// after it was canceled or timed out. What a caller sees is the same: values
// are encoded and copied, failures carry the same codes, retries and streams
// follow the same rules.
package rt
