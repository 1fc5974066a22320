package jail

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/internal/link"
)

// TestMain makes the test binary the child of its own tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if run, ok := children[os.Args[1]]; ok {
			if err := run(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// children are what the test binary does when it is started as a child. Each
// has the link to its test at descriptor 3.
var children = map[string]func(args []string) error{
	"_probe_worker":   func(a []string) error { return probeChild(Worker(a[0], 3), a) },
	"_probe_compiler": func(a []string) error { return probeChild(Compiler(a[0], time.Minute, 0, 3), a) },
	"_probe_free":     func(a []string) error { return probeChild(Profile{}, a) },
	"_enter":          enterChild,
	"_work":           workChild,
	"_compile":        compileChild,
	"_load":           loadChild,
	"_spin":           spinChild,
	"_die":            func([]string) error { fmt.Fprint(os.Stderr, "first\nlast words"); os.Exit(3); return nil },
	"_wait":           waitChild,
	"_parent":         parentChild,
	"_leak":           leakChild,
}

// start spawns one of children and returns the test's end of its link.
func start(t testing.TB, cfg Config) (*Process, *link.Conn) {
	t.Helper()
	conn, file, err := link.Pair(link.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Files = append([]*os.File{file}, cfg.Files...)
	p, err := Spawn(cfg)
	file.Close()
	if err != nil {
		conn.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		p.Wait()
		conn.Close()
	})
	return p, conn
}

// receive returns what the child sent, or fails with what it wrote.
func receive(t testing.TB, p *Process, c *link.Conn, v any) {
	t.Helper()
	m, err := c.Recv()
	if err == nil {
		err = link.Unmarshal(m.Body, v)
	}
	if err != nil {
		p.Kill()
		t.Fatalf("child sent no result: %v; it %v and wrote:\n%s", err, p.Wait(), p.Stderr())
	}
}

// enter enters the jail and opens the child's end of its link.
func enter(p Profile) (*link.Conn, Applied, error) {
	a, err := Enter(p)
	if err != nil {
		return nil, a, err
	}
	conn, err := link.FromFile(os.NewFile(3, "link"), link.Options{})
	return conn, a, err
}

func send(c *link.Conn, v any) error {
	body, err := link.Marshal(v)
	if err != nil {
		return err
	}
	return c.Send(link.Message{Body: body})
}

// enterChild enters and says what was applied.
func enterChild(args []string) error {
	conn, a, err := enter(Worker(args[0], 3))
	if err != nil {
		return err
	}
	return send(conn, a)
}

// waitChild says that it runs, and waits for death.
func waitChild([]string) error {
	conn, err := link.FromFile(os.NewFile(3, "link"), link.Options{})
	if err != nil {
		return err
	}
	if err := send(conn, "waiting"); err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return nil
}

// parentChild spawns a child of its own, passes its link on, and waits for
// death.
func parentChild([]string) error {
	p, err := Spawn(Config{Args: []string{"_wait"}, Files: []*os.File{os.NewFile(3, "link")}})
	if err != nil {
		return err
	}
	return p.Wait().Err
}

// spinChild uses processor time until its limit ends it.
func spinChild(args []string) error {
	if _, err := Enter(Compiler(args[0], time.Second, 0, 3)); err != nil {
		return err
	}
	for n := 0; ; n++ {
	}
}

// leakChild says which descriptors it has, before and after.
func leakChild(args []string) error {
	before := descriptors()
	conn, a, err := enter(Worker(args[0], 3))
	if err != nil {
		return err
	}
	l := leaks{Before: before, Closed: a.ClosedFiles}
	for _, d := range before {
		var fd int
		fmt.Sscanf(d, "%d=", &fd)
		// 3 was the link; the runtime's own stay.
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && !strings.Contains(d, "[event") && fd != 3 {
			l.After = append(l.After, d)
		}
	}
	return send(conn, l)
}

type leaks struct {
	Before, After []string
	Closed        int
}

func descriptors() (list []string) {
	for fd := 3; fd < 4096; fd++ {
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
			list = append(list, fmt.Sprintf("%d=%s", fd, target))
		}
	}
	return list
}
