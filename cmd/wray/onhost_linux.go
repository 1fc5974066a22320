package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/fd"
)

// hosted is a node as wray up keeps it: a directory beside the program.
type hosted struct {
	name, self, dir string
}

func (h hosted) file(name string) string { return filepath.Join(h.dir, name) }
func (h hosted) socket() string          { return h.file("node.sock") }

// obey does what an order says.
func (o *hostOrder) obey(ctx context.Context) (r hostReport, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	h := hosted{o.Name, self, filepath.Join(filepath.Dir(self), o.Name)}
	switch o.Do {
	case "up":
		return h.up(ctx, o)
	case "down":
		was, err := h.stop(ctx)
		if err == nil {
			err = h.forget(ctx)
		}
		r.Did = "it did not run"
		if was {
			r.Did = "it has left, and is stopped"
		}
		return r, err
	case "token":
		var t clientwire.Token
		err := h.ask(ctx, func(n *remote) error {
			return n.call(ctx, clientwire.KindToken, clientwire.TokenBody{Uses: 1, Life: int64(10 * time.Minute), Head: o.Head}, nil, &t)
		})
		return hostReport{Did: "a token", Token: t.Token}, err
	}
	return r, fmt.Errorf("there is no order %q", o.Do)
}

func (h hosted) ask(ctx context.Context, f func(*remote) error) error {
	n, err := dialNode(ctx, "unix://"+h.socket())
	if err != nil {
		return err
	}
	defer n.Close()
	return f(n)
}

// started is how a node was started; another means another start.
type started struct {
	Args    []string `json:"args"`
	Program string   `json:"program"`
}

func (h hosted) up(ctx context.Context, o *hostOrder) (r hostReport, err error) {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return r, err
	}
	args := append([]string{"start", "--cluster-dir", h.file("cluster"), "--socket", h.socket()}, o.Flags...)
	if slices.Contains(o.Flags, "--head") {
		args = append(args, "--no-token") // what it prints is kept
	}
	sum, err := fileSum(h.self)
	if err != nil {
		return r, err
	}
	want, err := json.Marshal(started{args, sum})
	if err != nil {
		return r, err
	}
	have, _ := os.ReadFile(h.file("started.json")) // none: it is started
	pid := h.pid(ctx)
	if pid > 0 && string(have) == string(want) {
		return hostReport{Did: "it runs"}, h.await(ctx, nil)
	}
	_, err = os.Stat(filepath.Join(h.file("cluster"), auth.NodeFile))
	if err != nil && slices.Contains(args, "--address") && o.Token == "" {
		return hostReport{Did: "it has to join", Join: true}, nil
	}
	r.Did = "it was started"
	if was, err := h.stop(ctx); err != nil {
		return r, err
	} else if was {
		r.Did = "it was started again"
	}
	if err := h.start(ctx, args, o.Token); err != nil {
		return r, err
	}
	return r, auth.WriteFile(h.file("started.json"), want)
}

// start starts the node, as a service where there is systemd, and else as a
// process of its own, and waits until it takes work.
func (h hosted) start(ctx context.Context, args []string, token string) error {
	env := "XDG_STATE_HOME=" + h.dir + "\n"
	if token != "" {
		env += tokenEnv + "=" + token + "\n"
	}
	if s, ok := systemdOf(ctx); ok {
		if err := auth.WriteFile(h.file("env"), []byte(env)); err != nil { // for its user alone
			return err
		}
		// The token is of no use once the node has joined.
		defer os.Remove(h.file("env"))
		if err := s.enable(ctx, h, args); err != nil {
			return err
		}
		return h.await(ctx, func() error { return s.alive(ctx, h) })
	}
	log, err := os.OpenFile(h.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	cmd := exec.Command(h.self, args...)
	cmd.Dir, cmd.Env = h.dir, append(os.Environ(), strings.Split(strings.TrimSpace(env), "\n")...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives the connection
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the node, or with this process
	return h.await(ctx, func() error {
		select {
		case err := <-ended:
			b, _ := os.ReadFile(h.file("log"))
			return fmt.Errorf("the node ended (%v): %s", err, b[min(from, int64(len(b))):])
		default:
			return nil
		}
	})
}

// await waits until the node takes work, or alive says that it never will.
func (h hosted) await(ctx context.Context, alive func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		err := h.ask(ctx, func(n *remote) error {
			var s clientwire.Status
			if err := n.call(ctx, clientwire.KindStatus, struct{}{}, nil, &s); err != nil {
				return err
			}
			return unready(s)
		})
		if err == nil {
			return nil
		}
		if alive != nil {
			if err := alive(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %s does not become ready: %w", h.name, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// pid is the process that listens at the node's socket, or 0.
func (h hosted) pid(ctx context.Context) (pid int) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", h.socket())
	if err != nil {
		return 0
	}
	defer c.Close()
	_ = fd.Do(c.(*net.UnixConn), func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			pid = int(cred.Pid)
		}
		return err
	})
	return pid
}

// stop drains the node, if it runs, and waits for its end.
func (h hosted) stop(ctx context.Context) (was bool, err error) {
	pid := h.pid(ctx)
	if pid <= 0 {
		return false, nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false, fmt.Errorf("process %d of node %s: %w", pid, h.name, err)
	}
	defer unix.Close(fd)
	if h.pid(ctx) != pid { // the number is another's by now
		return false, fmt.Errorf("node %s ends, or is started, at the moment: try again", h.name)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return false, fmt.Errorf("stop process %d of node %s: %w", pid, h.name, err)
	}
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		if n > 0 {
			return true, nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return true, err
		}
	}
	return true, ctx.Err()
}

// forget has a node not started again with the machine.
func (h hosted) forget(ctx context.Context) error {
	if s, ok := systemdOf(ctx); ok {
		return s.disable(ctx, h)
	}
	return nil
}
