package codecache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray"
)

// TestCompilerKilled kills compilers from outside. The first time another one is
// started; a second time that is the error, which is of the moment and not kept.
func TestCompilerKilled(t *testing.T) {
	c := openCache(t, testConfig(t.TempDir()))
	compiling := make(chan string, 1)
	c.watch.compiling = func(out string) {
		if err := unix.Mkfifo(filepath.Join(out, goFile), 0o600); err != nil {
			t.Error(err)
		}
		compiling <- out
	}
	// each has the next compiler, once it compiles, killed or go on.
	each := func(kill bool) {
		out := <-compiling
		for kill {
			if pid := processWith(t, out); pid > 0 { // which it is once it is started
				if err := unix.Kill(pid, unix.SIGKILL); err != nil {
					t.Error(err)
				}
				return
			}
		}
		start, err := os.OpenFile(filepath.Join(out, goFile), os.O_WRONLY, 0) // returns once the compiler reads
		if err != nil {
			t.Error(err)
			return
		}
		start.Close()
	}
	for _, c2 := range []struct {
		tag   int
		kills []bool
	}{{1, []bool{true, false}}, {2, []bool{true, true}}, {2, []bool{false}}} {
		ended := make(chan error, 1)
		go func() {
			_, err := c.Get(t.Context(), "local", module("wait", c2.tag))
			ended <- err
		}()
		for _, kill := range c2.kills {
			each(kill)
		}
		err := <-ended
		if fails := len(c2.kills) > 1 && c2.kills[1]; fails != (err != nil) || fails && (!strings.Contains(err.Error(), "killed twice") || errors.Is(err, wray.ErrInvalidModule)) {
			t.Errorf("module %d, killed %v: %v", c2.tag, c2.kills, err)
		}
	}
}

// processWith returns the process that has arg among its arguments; 0: none has.
func processWith(t *testing.T, arg string) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")) // it may have ended
		if slices.Contains(strings.Split(string(line), "\x00"), arg) {
			return pid
		}
	}
	return 0
}
