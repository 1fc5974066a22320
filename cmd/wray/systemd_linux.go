package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/wray-project/wray/host/auth"
)

// systemd is the service manager that a node's user may use: the machine's, for
// root, or his own.
type systemd struct {
	dir  string // of units
	user bool
}

// systemdOf finds it. It is not there in most containers, and without a session.
func systemdOf(ctx context.Context) (s systemd, ok bool) {
	s.dir = "/etc/systemd/system"
	if os.Getuid() != 0 {
		conf, err := os.UserConfigDir()
		if err != nil {
			return s, false
		}
		s = systemd{filepath.Join(conf, "systemd", "user"), true}
	}
	_, err := s.ctl(ctx, "show-environment")
	return s, err == nil
}

func (s systemd) ctl(ctx context.Context, args ...string) (string, error) {
	if s.user {
		args = append([]string{"--user"}, args...)
	}
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}

func (s systemd) unit(h hosted) string { return "wray-" + h.name + ".service" }

// enable has the node run now, and with the machine. What it is started with is
// in its environment file.
func (s systemd) enable(ctx context.Context, h hosted, args []string) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := auth.WriteFile(filepath.Join(s.dir, s.unit(h)), []byte(s.text(h, args))); err != nil {
		return err
	}
	if s.user { // or it ends with the session; where that is forbidden, it does
		_ = exec.CommandContext(ctx, "loginctl", "enable-linger").Run()
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", s.unit(h)}, {"restart", s.unit(h)}} {
		if _, err := s.ctl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (s systemd) disable(ctx context.Context, h hosted) error {
	if _, err := os.Stat(filepath.Join(s.dir, s.unit(h))); err != nil {
		return nil // it was started without
	}
	_, err := s.ctl(ctx, "disable", "--now", s.unit(h))
	return err
}

// alive says that the node has failed.
func (s systemd) alive(ctx context.Context, h hosted) error {
	state, err := s.ctl(ctx, "show", "--property=Result", "--value", s.unit(h))
	if err == nil && state != "success" {
		return fmt.Errorf("systemd says of %s: %s; see journalctl -u %s", s.unit(h), state, s.unit(h))
	}
	return nil // what systemd does not say shows in time
}

// text is the unit.
func (s systemd) text(h hosted, args []string) string {
	var line []string
	for _, a := range append([]string{h.self}, args...) {
		line = append(line, quoteUnit(a))
	}
	wanted := "multi-user.target"
	if s.user {
		wanted = "default.target"
	}
	return `# Written by wray up.
[Unit]
Description=wray node ` + h.name + `
Wants=network-online.target
After=network-online.target

[Service]
Environment=` + quoteUnit("XDG_STATE_HOME="+h.dir) + `
EnvironmentFile=-` + strings.ReplaceAll(h.file("env"), "%", "%%") + `
WorkingDirectory=` + strings.ReplaceAll(h.dir, "%", "%%") + `
ExecStart=` + strings.Join(line, " ") + `
# SIGTERM drains the node; its workers must not get it.
KillMode=mixed
TimeoutStopSec=600s
Restart=on-failure
RestartSec=2s
LimitNOFILE=524288
TasksMax=infinity
NoNewPrivileges=yes

[Install]
WantedBy=` + wanted + `
`
}

// quoteUnit writes a word of a unit so that systemd reads that word.
func quoteUnit(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`).Replace(s) + `"`
}
