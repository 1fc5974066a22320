package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What wray up has systemd run is what systemd takes.
func TestUpUnit(t *testing.T) {
	h := hosted{"one", "/opt/w/wray", "/opt/w/one"}
	text := systemd{}.text(h, []string{"start", "--resource", `a "b" 100%$x=1`, "--head"})
	if want := `ExecStart="/opt/w/wray" "start" "--resource" "a \"b\" 100%%$$x=1" "--head"`; !strings.Contains(text, want+"\n") {
		t.Errorf("no %s in\n%s", want, text)
	}
	h.dir = t.TempDir()
	verifyUnit(t, "wray-one.service", systemd{}.text(h, []string{"start", `a"b`}))
}

// Where there is systemd the node is its service, and the token is in no command.
func TestUpSystemd(t *testing.T) {
	dir := t.TempDir()
	said := filepath.Join(dir, "said")
	write(t, filepath.Join(dir, "systemctl"), "#!/bin/sh\necho \"$@\" >>"+said+"\n")
	if err := os.Chmod(filepath.Join(dir, "systemctl"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	h := hosted{"one", "/opt/w/wray", filepath.Join(dir, "one")}
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := systemd{dir: filepath.Join(dir, "units")}
	if err := s.enable(t.Context(), h, []string{"start"}); err != nil {
		t.Fatal(err)
	}
	if err := s.disable(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(said)
	if want := "daemon-reload\nenable wray-one.service\nrestart wray-one.service\ndisable --now wray-one.service\n"; err != nil || string(b) != want {
		t.Errorf("%v, %s", err, b)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "wray-one.service")); err != nil {
		t.Error(err)
	}
}

// A mistake in a file of hosts is told before any of them is reached.
func TestFleetMistakes(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for says, flags := range map[string]string{
		"unknown flag: --no-such": "[--no-such]", "wray up says --token itself": `[--token, "@x"]`, `"x" is no flag`: "[x]",
	} {
		file := filepath.Join(t.TempDir(), "fleet.yaml")
		write(t, file, "hosts:\n- {ssh: one, name: one, head: true, address: \"192.0.2.1:7420\", flags: "+flags+"}\n")
		if s := mistake(t, "up", file); !strings.Contains(s, says) || !strings.Contains(s, "host one") {
			t.Errorf("%s: %s", flags, s)
		}
	}
	mistake(t, "down", filepath.Join(t.TempDir(), "none"))
}
