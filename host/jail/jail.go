// Package jail starts the worker and compiler processes and takes away from
// them everything they do not need.
//
// A worker runs code that wazero compiled from a stranger's module; a compiler
// reads that module. Either may be taken over, so neither may reach more than
// its own memory, the descriptors it was given, and the files of one directory.
// The parent's half (Spawn) gives the child a clean environment, null standard
// streams, empty namespaces where the machine permits them, and death with its
// parent. The child's half (Enter), called before it reads anything a stranger
// wrote, closes other descriptors, lowers resource limits, drops capabilities,
// and puts on a landlock domain and a seccomp filter that nothing can take off
// again.
//
// What a machine lacks is reported in Applied; where that is landlock or
// seccomp, Enter refuses, unless the profile allows a weak jail.
package jail

import (
	"fmt"
	"strings"
	"time"
)

// Profile says what a process keeps.
type Profile struct {
	// Name is shown in reports and errors.
	Name string
	// ReadDirs are directories whose files may be opened for reading and listed.
	ReadDirs []string
	// WriteDirs are directories in which files and directories may be created,
	// written, renamed and removed, and which may be read. Files elsewhere
	// cannot be opened for writing whether or not landlock works.
	WriteDirs []string
	// Keep are the descriptors that stay open, besides 0, 1 and 2 and those of
	// the Go runtime.
	Keep   []int
	Limits Limits
	// AllowWeak lets the process run on a machine without landlock or seccomp.
	AllowWeak bool
}

// Limits are resource limits (setrlimit(2)). Zero leaves a limit as it is,
// except core dumps, which are always off.
type Limits struct {
	AddressSpace int64 // bytes of virtual memory; not applied in race-detector builds
	OpenFiles    int64 // descriptors
	FileSize     int64 // bytes of one file; shared memory objects count as files
	CPU          time.Duration
	// Threads is how many threads the process may have. It is applied in a user
	// namespace of its own only, since elsewhere it would count the threads of
	// all processes of the user.
	Threads int64
}

// Worker returns the profile of a worker: it may read codeDir, its tenant's
// code cache, and nothing else. fds are the descriptors it was given.
func Worker(codeDir string, fds ...int) Profile {
	return Profile{
		Name:     "worker",
		ReadDirs: []string{codeDir},
		Keep:     fds,
		Limits:   Limits{OpenFiles: 1 << 16, Threads: 4096},
	}
}

// Compiler returns the profile of a compiler: it may write outDir, and nothing
// else, for so much processor time and memory.
func Compiler(outDir string, cpu time.Duration, memory int64, fds ...int) Profile {
	return Profile{
		Name:      "compiler",
		WriteDirs: []string{outDir},
		Keep:      fds,
		Limits: Limits{
			AddressSpace: memory, OpenFiles: 64, FileSize: 2 << 30, CPU: cpu, Threads: 256,
		},
	}
}

// Applied is what was taken away from a process. It travels to the parent, and
// `wray doctor` prints it.
type Applied struct {
	Profile      string   `cbor:"1,keyasint" json:"profile"`
	Namespaces   []string `cbor:"2,keyasint,omitempty" json:"namespaces"`   // new ones, such as "net"
	Landlock     int      `cbor:"3,keyasint,omitempty" json:"landlock"`     // ABI version; 0: none
	Seccomp      int      `cbor:"4,keyasint,omitempty" json:"seccomp"`      // system calls allowed; 0: no filter
	NoNewPrivs   bool     `cbor:"5,keyasint,omitempty" json:"no_new_privs"` // setuid programs give nothing
	Capabilities bool     `cbor:"6,keyasint,omitempty" json:"no_caps"`      // none are left
	Undumpable   bool     `cbor:"7,keyasint,omitempty" json:"undumpable"`   // no core, no ptrace by the same user
	ClosedFiles  int      `cbor:"8,keyasint,omitempty" json:"closed_files"` // descriptors that had been inherited
	Limits       []string `cbor:"9,keyasint,omitempty" json:"limits"`       // such as "NOFILE=65536"
	Missing      []string `cbor:"10,keyasint,omitempty" json:"missing"`     // what the machine did not permit, and why
}

// String returns one line for logs.
func (a Applied) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: namespaces %s, landlock ABI %d, seccomp %d calls", a.Profile, orNone(a.Namespaces), a.Landlock, a.Seccomp)
	for _, x := range []struct {
		on   bool
		text string
	}{{a.NoNewPrivs, "no_new_privs"}, {a.Capabilities, "no capabilities"}, {a.Undumpable, "undumpable"}} {
		if x.on {
			b.WriteString(", " + x.text)
		}
	}
	fmt.Fprintf(&b, ", limits %s", orNone(a.Limits))
	if len(a.Missing) > 0 {
		fmt.Fprintf(&b, "; missing: %s", strings.Join(a.Missing, "; "))
	}
	return b.String()
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, "+")
}
