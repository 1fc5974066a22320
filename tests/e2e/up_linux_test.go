package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fakeSSH runs what ssh would run elsewhere here, in a home of each host's own,
// and keeps the command lines.
const fakeSSH = `#!/bin/sh
[ "$1 $2 $3" = "-T -o BatchMode=yes" ] || exit 255
echo "$@" >>"$FLEET/commands"
[ -d "$FLEET/$4" ] || { echo "ssh: Could not resolve hostname $4" >&2; exit 255; }
export HOME="$FLEET/$4" XDG_STATE_HOME= XDG_RUNTIME_DIR= WRAY_CACHE="$FLEET/$4/cache"
cd "$HOME" && exec sh -c "$5"
`

// freePort is a port of an address that nobody has.
func freePort(t *testing.T, ip string) string {
	t.Helper()
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestUp has a head and a node started on two hosts, again, with another flag,
// stopped, and back.
func TestUp(t *testing.T) {
	dir, err := os.MkdirTemp("", "fleet") // short, for the sockets
	if err != nil {
		t.Fatal(err)
	}
	static := filepath.Join(dir, "wray")
	build := exec.Command("go", "build", "-o", static, "./cmd/wray")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, host := range []string{"bin", "one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, host), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "ssh"), []byte(fakeSSH), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	t.Setenv("FLEET", dir)
	file := filepath.Join(dir, "fleet.yaml")
	one, two := freePort(t, "127.0.0.2"), freePort(t, "127.0.0.3")
	hosts := func(cpus int, last string) {
		text := fmt.Sprintf("directory: w\nhosts:\n- {ssh: two, name: node-two, address: %q, cpus: %d, labels: {zone: a}}\n- {ssh: one, name: head-one, address: %q, head: true, cpus: 1}\n%s",
			two, cpus, one, last)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	saved := wray
	wray = static
	defer func() { wray = saved }()
	t.Cleanup(func() {
		hosts(1, "")
		if out, err := exec.Command(static, "down", file).CombinedOutput(); err != nil {
			t.Errorf("wray down: %v: %s", err, out)
			return // what runs needs its directory
		}
		os.RemoveAll(dir)
	})
	upDown := func(verb string, want ...string) {
		t.Helper()
		r := run(t, "", verb, file)
		if r.code != 0 {
			log, _ := os.ReadFile(filepath.Join(dir, "two/w/node-two/log"))
			t.Fatalf("wray %s: %d, %s%s%s", verb, r.code, r.stdout, r.stderr, log)
		}
		if got := strings.TrimSpace(r.stdout); got != strings.Join(want, "\n") {
			t.Errorf("wray %s:\n%s\nwant\n%s", verb, got, strings.Join(want, "\n"))
		}
	}
	hosts(1, "")
	if r := run(t, "", "up", "--dry-run", file); r.code != 0 || !strings.Contains(r.stdout, "wray start --name node-two --listen "+two+" --address "+one+" --cpus 1 --labels zone=a\n") {
		t.Errorf("wray up --dry-run: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "commands")); err == nil {
		t.Error("a dry run reached a host")
	}
	upDown("up", "head-one (one): wray was copied to w", "head-one (one): it was started", "node-two (two): wray was copied to w", "node-two (two): it was started")
	atOne, atTwo := "unix://"+filepath.Join(dir, "one/w/head-one/node.sock"), "unix://"+filepath.Join(dir, "two/w/node-two/node.sock")
	awaitStatus(t, atOne, "node-two", "alive")
	upDown("up", "head-one (one): it runs", "node-two (two): it runs")
	hosts(2, "")
	upDown("up", "head-one (one): it runs", "node-two (two): it was started again")
	awaitStatus(t, atTwo, "head-one", "alive")

	// A host that is not there is named, and the others are not stopped by it.
	hosts(2, fmt.Sprintf("- {ssh: three, name: node-three, address: %q}\n", freePort(t, "127.0.0.4")))
	if r := run(t, "", "up", file); r.code != 1 || !strings.Contains(r.stderr, "node-three (three): exit status 255: ssh: Could not resolve hostname three") ||
		!strings.Contains(r.stderr, "hint: see what ssh three says") || !strings.Contains(r.stdout, "node-two (two): it runs") {
		t.Errorf("a host that is not there: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	// A new head before the one of the cluster begins none beside it.
	if err := os.Mkdir(filepath.Join(dir, "new"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("directory: w\nhosts:\n- {ssh: new, name: new, address: %q, head: true}\n- {ssh: one, name: head-one, address: %q, head: true, cpus: 1}\n",
		freePort(t, "127.0.0.5"), one)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, "", "up", file); r.code != 1 || !strings.Contains(r.stderr, "head-one (one) is in one") || !strings.Contains(r.stderr, "hint: list a head of that cluster first") {
		t.Errorf("a new head before the first: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "new", "w")); err == nil {
		t.Error("it was given a program")
	}
	hosts(2, "")
	upDown("down", "node-two (two): it has left, and is stopped", "head-one (one): it has left, and is stopped")
	upDown("down", "node-two (two): it did not run", "head-one (one): it did not run")
	upDown("up", "head-one (one): it was started", "node-two (two): it was started")
	awaitStatus(t, atOne, "node-two", "alive")

	// Nothing that is kept, but the node's own, has a token.
	commands, err := os.ReadFile(filepath.Join(dir, "commands"))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"one/w/head-one", "two/w/node-two"} {
		log, err := os.ReadFile(filepath.Join(dir, host, "log"))
		if err != nil {
			t.Fatal(err)
		}
		commands = append(commands, log...)
	}
	token, _ := tokenOf(t, atOne)
	form := regexp.MustCompile(`wray1[a-z2-7]{20}`)
	if !form.MatchString(token) || form.Match(commands) || strings.Contains(string(commands), "WRAY_JOIN_TOKEN=") {
		t.Errorf("a token in a command or a log, or tokens have another form:\n%s", commands)
	}
}
