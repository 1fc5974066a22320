// Package guest is the Go half of the interface wray_v1 (docs/ABI.md): it
// turns the host's imports into functions that block one goroutine and never
// the guest, and gives the host the export wray_call. Programs use package
// sdk, which is written on it; on other targets than GOOS=wasip1 only the
// types of this file exist.
//
// # Building
//
// A program is built as a reactor, whose main the host calls when it wants
// the driver:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared
//
// No linker flag is needed: the binding uses main.main, which any package may
// link to, and those names of the runtime that the Go project keeps open for
// use by others (runtime.mallocgc, runtime.getm, runtime.cheaprand).
//
// # Waiting
//
// A blocking import would stop every goroutine of the guest, since all of
// them run on the one thread that is inside the import. So nothing here waits
// in the host. What is not there yet is EAGAIN; the goroutine parks in Go, and
// one dispatcher goroutine reads the event descriptor through Go's poller.
// When every goroutine is parked, Go's scheduler calls poll_oneoff, which is
// where the sandbox gives up its thread.
//
// # Goroutines and atomicity
//
// wasip1 has one thread and no asynchronous preemption: a goroutine is only
// exchanged for another at a call. Short stretches of this package that make
// no call rely on that instead of a lock, and say so.
//
// # Lives of handles
//
// A [Ref] holds a handle, and the handle holds a reference on an object. It is
// given back, in batches, when the result was small enough to be kept in the
// Ref itself, when the collector finds the Ref unreachable, and when the task
// that got it ends: a Ref is not usable after its task.
package guest

import (
	"strconv"

	"github.com/wray-project/wray/wasm/abi"
)

// Errno is the failure of an import.
type Errno abi.Errno

var errnoNames = map[abi.Errno]string{
	abi.E2BIG: "E2BIG", abi.EAGAIN: "EAGAIN", abi.EBADF: "EBADF", abi.ECANCELED: "ECANCELED",
	abi.EEXIST: "EEXIST", abi.EFAULT: "EFAULT", abi.EINVAL: "EINVAL", abi.EIO: "EIO",
	abi.EMSGSIZE: "EMSGSIZE", abi.ENOENT: "ENOENT", abi.ENOMEM: "ENOMEM", abi.ENOSPC: "ENOSPC",
	abi.ENOSYS: "ENOSYS", abi.ENOTSUP: "ENOTSUP", abi.EOVERFLOW: "EOVERFLOW", abi.EPERM: "EPERM",
}

// Error returns the errno's name.
func (e Errno) Error() string {
	if s := errnoNames[abi.Errno(e)]; s != "" {
		return s
	}
	return "errno " + strconv.Itoa(int(e))
}

// Refusal is an Errno of which the host says more.
type Refusal struct {
	Errno Errno
	Why   []byte // a wray.Error in CBOR
}

// Error returns the errno's name.
func (r *Refusal) Error() string { return r.Errno.Error() }

// Unwrap returns the errno.
func (r *Refusal) Unwrap() error { return r.Errno }

// Flags of a [Spec].
const (
	Fresh       = abi.SpecFresh
	StreamTask  = abi.SpecStream
	RetryErrors = abi.SpecRetryErrors
	HasCPU      = abi.SpecHasCPU
	HasRetries  = abi.SpecHasRetries
	NewActor    = abi.SpecActor
	Named       = abi.SpecNamed
	GetIfExists = abi.SpecGetIfExists
	Detached    = abi.SpecDetached
)
