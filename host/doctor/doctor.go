// Package doctor says what this machine offers to wray, and how to get what it
// lacks. Each check asks the machine itself (a mapping, a system call, a new
// namespace) and not a version number, since kernels are built and confined in
// many ways. Nothing is left changed, but that the cache directory exists.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Status is the outcome of a check.
type Status string

// The outcomes, from good to bad.
const (
	OK   Status = "ok"
	Warn Status = "warn" // wray runs, but slower, with fewer sandboxes, or with a weaker jail
	Fail Status = "fail" // wray run does not work on this machine
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail"` // what was found
	// Remedy is what a user can do. It is empty when Status is OK.
	Remedy string `json:"remedy,omitempty"`
}

// Options say what to look at. The zero value looks at the machine alone.
type Options struct {
	// CacheDir is where compiled code is to be kept; it is made when it does not
	// exist. Empty: not looked at.
	CacheDir string
}

// Run makes all checks, in a fixed order. Canceling ctx cuts short those that
// start processes; their checks then say so.
func Run(ctx context.Context, o Options) []Check {
	checks := machine()
	checks = append(checks, cpus(), goToolchain(ctx))
	if o.CacheDir != "" {
		checks = append(checks, cacheDir(o.CacheDir))
	}
	return checks
}

// Failed reports whether any check failed.
func Failed(checks []Check) bool {
	for _, c := range checks {
		if c.Status == Fail {
			return true
		}
	}
	return false
}

func ok(name, format string, args ...any) Check {
	return Check{Name: name, Status: OK, Detail: fmt.Sprintf(format, args...)}
}

func warn(name, remedy, format string, args ...any) Check {
	return Check{Name: name, Status: Warn, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func fail(name, remedy, format string, args ...any) Check {
	return Check{Name: name, Status: Fail, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func cpus() Check {
	n, use := runtime.NumCPU(), runtime.GOMAXPROCS(0)
	if use < n {
		return ok("cpus", "%d, of which %d are granted (a control group's quota, or GOMAXPROCS)", n, use)
	}
	return ok("cpus", "%d", n)
}

// goMinor is the least release of Go 1 that builds guests.
const goMinor = 26

// goToolchain looks for the go command, which wray run needs for a package
// directory and not for a .wasm file.
func goToolchain(ctx context.Context) Check {
	const name = "go"
	remedy := fmt.Sprintf("install Go 1.%d or later from https://go.dev/dl to run package directories; .wasm files run without it", goMinor)
	path, err := exec.LookPath("go")
	if err != nil {
		return warn(name, remedy, "no go command in PATH")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "env", "GOVERSION")
	cmd.Dir = os.TempDir() // a go.mod may name another version
	out, err := cmd.Output()
	version := strings.TrimSpace(string(out))
	if err != nil {
		return warn(name, remedy, "%s env GOVERSION: %v", path, err)
	}
	if minor, known := minorVersion(version); known && minor < goMinor {
		return warn(name, remedy, "%s is %s", path, version)
	}
	return ok(name, "%s is %s", path, version)
}

// minorVersion returns the 26 of "go1.26.1". Development versions have none.
func minorVersion(v string) (int, bool) {
	v, found := strings.CutPrefix(v, "go1.")
	if !found {
		return 0, false
	}
	end := strings.IndexFunc(v, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(v)
	}
	n, err := strconv.Atoi(v[:end])
	return n, err == nil
}

// cacheDir checks that compiled code can be kept where nobody else can write
// it: it is native code, which the worker runs.
func cacheDir(dir string) Check {
	const name = "cache directory"
	const remedy = "set WRAY_CACHE to a directory of your own that you can write"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(name, remedy, "%v", err)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return fail(name, remedy, "%v", err)
	}
	f, err := os.CreateTemp(dir, ".doctor-")
	if err != nil {
		return fail(name, remedy, "%v", err)
	}
	_, werr := f.Write(make([]byte, 4096))
	err = errors.Join(werr, f.Close(), os.Remove(f.Name()))
	if err != nil {
		return fail(name, remedy+", on a disk with room", "%v", err)
	}
	if c, bad := foreign(name, dir, st); bad {
		return c
	}
	if p := st.Mode().Perm(); runtime.GOOS != "windows" && p&0o077 != 0 {
		return warn(name, "run chmod 700 "+dir, "%s has mode %#o: others reach compiled code; wray run closes it", dir, p)
	}
	return ok(name, "%s, private and writable", dir)
}

// gpus names the device nodes of GPUs under root, which is /dev but in tests.
func gpus(root string) Check {
	const name = "gpu"
	var found []string
	for _, pattern := range []string{"nvidia[0-9]*", "kfd", "dri/renderD*"} {
		m, _ := filepath.Glob(filepath.Join(root, pattern)) // the patterns are well formed
		found = append(found, m...)
	}
	if len(found) == 0 {
		return ok(name, "no device nodes of GPUs")
	}
	for _, dev := range found {
		f, err := os.OpenFile(dev, os.O_RDWR, 0)
		if err == nil {
			f.Close()
			continue
		}
		if errors.Is(err, fs.ErrPermission) {
			return warn(name, "join the group that owns "+dev+" (often video or render)", "%s, but %s cannot be opened", strings.Join(found, " "), dev)
		}
	}
	return ok(name, "%s", strings.Join(found, " "))
}
