// Package nodeaddr says where nodes are found, and connects to them.
package nodeaddr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// Env is the variable that names the node where nothing else does.
const Env = "WRAY_ADDRESS"

// RuntimeDir is where sockets of this user's nodes are: wray in
// $XDG_RUNTIME_DIR, or else run in wray's directory of the user's cache.
func RuntimeDir() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "wray"), nil
	}
	if dir := os.Getenv("WRAY_CACHE"); dir != "" {
		dir, err := filepath.Abs(dir)
		return filepath.Join(dir, "run"), err
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is no directory for sockets of nodes: %v", err),
			Hint: "set WRAY_CACHE, or XDG_RUNTIME_DIR, to a directory of your own, as where the node was started"}
	}
	return filepath.Join(dir, "wray", "run"), nil
}

// DefaultSocket is the socket of the user's node.
func DefaultSocket() (string, error) {
	dir, err := RuntimeDir()
	return filepath.Join(dir, "node.sock"), err
}

// Sockets are those of the user's nodes that are in RuntimeDir, alive or not.
func Sockets() ([]string, error) {
	dir, err := RuntimeDir()
	if err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "*.sock"))
}

// Socket returns the path that an address names: unix:///path, a path, or
// empty for $WRAY_ADDRESS or else the default.
func Socket(address string) (string, error) {
	if address == "" {
		address = os.Getenv(Env)
	}
	if address == "" {
		return DefaultSocket()
	}
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok && strings.Contains(address, "://") || path == "" {
		return "", &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("%q is no address of a node", address),
			Hint: "write unix:///PATH, with the path that wray start prints"}
	}
	if host, port, err := net.SplitHostPort(path); err == nil && !ok && host != "" && !strings.ContainsAny(path, "/@") && port != "" {
		return "", &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("%q is an address on the network, where a node is asked about jobs, users and tokens alone", address),
			Hint: "log in to the node's machine as the user who runs it, and ask at its socket: unix:///PATH, as wray start prints it"}
	}
	return filepath.Abs(path)
}

// Dial connects to the node at an address.
func Dial(ctx context.Context, address string) (*link.Conn, error) {
	path, err := Socket(address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		e := &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is no node at %s: %v", path, err),
			Hint: "start one with: wray start"}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, fs.ErrPermission):
			e.Code, e.Hint = wray.CodeDenied, "a node serves the user who started it"
		}
		return nil, e
	}
	defer c.Close()
	f, err := c.(*net.UnixConn).File()
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return link.FromFile(f, clientwire.ControlOptions())
}

// FileOf returns a file of b to be passed on, which goes when it is closed.
func FileOf(b []byte) (*os.File, error) {
	f, err := os.CreateTemp("", "wray-module")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = f.Write(b)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
