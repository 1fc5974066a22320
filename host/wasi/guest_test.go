package wasi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/wasi"
)

// TestGuest runs an ordinary Go program, built from testdata/guest.
func TestGuest(t *testing.T) {
	mod := compile(t, build(t, "build", "./testdata/guest"))
	for name, tc := range map[string]struct {
		change func(*wasi.Config)
		args   []string
		code   uint32
		stdout string
		stderr string
	}{
		"files":    {stdout: "ok\n"},
		"dirs":     {stdout: "ok\n"},
		"links":    {stdout: "ok\n"},
		"timers":   {stdout: "ok\n"},
		"readonly": {stdout: "ok\n"},
		"limit":    {stdout: "64 open\nok\n"},
		"stdin": {
			change: func(c *wasi.Config) { c.Stdin = wasi.NewBytes([]byte(strings.Repeat("line\n", 10000))) },
			stdout: "10000 lines\nok\n",
		},
		"environ": {
			change: func(c *wasi.Config) { c.Env = append(c.Env, "KEY=value") },
			args:   []string{"two words", ""},
			stdout: "ok\n",
		},
		"exit":     {code: 7},
		"panic":    {code: 2, stderr: "on purpose"},
		"deadlock": {code: 2, stderr: "all goroutines are asleep"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, ro := t.TempDir(), t.TempDir()
			tree(t, ro, "f")
			cfg, _ := config()
			cfg.Args = append([]string{"guest", name}, tc.args...)
			cfg.Env = []string{"PWD=/work"}
			readOnly := grant(t, "/ro", ro)
			readOnly.ReadOnly = true
			cfg.Dirs = []wasi.Dir{grant(t, "/work", dir), readOnly}
			if tc.change != nil {
				tc.change(cfg)
			}
			code, out, errs := command(t, mod, cfg)
			if code != tc.code || out != tc.stdout || !strings.Contains(errs, tc.stderr) {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", code, tc.code, out, errs)
			}
		})
	}

	// A file of the host's, which a goroutine waits for while others go on.
	for name, feed := range map[string]int{"events": 100, "deadline": 0} {
		t.Run(name, func(t *testing.T) {
			cfg, p := config()
			cfg.Args = []string{"guest", name}
			cfg.Dirs = []wasi.Dir{grant(t, "/work", t.TempDir())}
			var out strings.Builder
			cfg.Stdout, cfg.Stderr = out.Write, out.Write
			q, sent := &queue{full: true}, 0
			cfg.Poller = pollFunc(func(deadline int64, files []wasi.Interest) wasi.Errno {
				if len(files) == 0 || sent == feed {
					return p.Wait(deadline, files)
				}
				q.b = fmt.Appendf(q.b, "event%03d", sent)
				sent++
				return 0
			})
			var sys wasi.System
			if err := sys.Reset(cfg); err != nil {
				t.Fatal(err)
			}
			defer sys.Close()
			if fd, e := sys.Install(q, wasi.FdNonblock); fd != 4 || e != 0 {
				t.Fatal(fd, e)
			}
			if code := run(t, mod, &sys); code != 0 || out.String() != "ok\n" || sent != feed {
				t.Errorf("exit code %d after %d events: %s", code, sent, out.String())
			}
		})
	}
}
