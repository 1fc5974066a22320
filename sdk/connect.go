//go:build !wasip1

package sdk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/nodeaddr"
	"github.com/wray-project/wray/internal/plain"
	"github.com/wray-project/wray/sdk/internal/rt"
)

// ConnectOptions say what a session in a node is to be. The zero value is a
// session that puts, gets and runs nothing.
type ConnectOptions struct {
	// Module is the file of the WebAssembly module whose tasks the session runs
	// (docs/CLIENTS.md says how to build one). Its functions are found by their
	// names: this program declares tasks of the same names and types, and what is
	// in its own functions is not run.
	Module string
	// Wasm is the module itself, instead of its file.
	Wasm []byte
	// Modules are further ones, by the names that sdk.Module calls them.
	Modules map[string][]byte

	Name       string        // of the job, in listings; default the program's
	Args, Env  []string      // that the module's sandboxes see
	Memory     int64         // bytes for each sandbox; 0: the default
	MaxHandles int           // references that the session, and each sandbox, holds; 0: the default
	Timeout    time.Duration // of the session; 0: none

	// Output takes what tasks print, line by line, and stderr whether they did
	// so there. nil: this process's own standard output and error, headed with
	// the task's name.
	Output func(task string, stderr bool, p []byte)
}

// Client is a session in a node: a job whose driver is this process.
type Client struct{ s *rt.Session }

// Connect opens a session in the node at address: unix:///PATH, or empty for
// $WRAY_ADDRESS or else the user's own node (wray start). It is for programs that
// are not built for wasip1.
//
// From then on [Put], Remote, [Wait] and the like work in the node, not in this
// process, whose tasks run in sandboxes there. The first session of a process is
// that of all contexts; one beside it is used through [Client.Context]. A
// reference is good in the session it is of.
//
// Values of 64 KiB and more are shared: Get maps the object's own memory, and
// Put writes the value once, into memory that becomes the object. As in a
// sandbox, writing to a slice that Get returned changes it for nobody else, and
// when it is garbage the memory is let go.
//
// When the session is closed, or this process ends however it may, the node lets
// go of all that the session held, and ends its tasks.
func Connect(ctx context.Context, address string, o ConnectOptions) (*Client, error) {
	so := rt.SessionOptions{Name: o.Name, Output: printer(o.Output)}
	if so.Name == "" {
		so.Name = filepath.Base(os.Args[0])
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	add := func(name string, f *os.File, err error) error {
		if err != nil {
			return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("module %s: %v", name, err)}
		}
		files = append(files, f)
		so.Modules = append(so.Modules, rt.SessionModule{Name: name, File: f})
		return nil
	}
	var err error
	switch {
	case o.Wasm != nil:
		f, ferr := nodeaddr.FileOf(o.Wasm)
		err = add("main", f, ferr)
	case o.Module != "":
		f, ferr := os.Open(o.Module)
		err = add(strings.TrimSuffix(filepath.Base(o.Module), ".wasm"), f, ferr)
	case len(o.Modules) > 0:
		err = wray.Errorf(wray.CodeBadArgument, "a session with Modules needs a Module or Wasm, which is the first")
	}
	for name, wasm := range o.Modules {
		if err == nil {
			f, ferr := nodeaddr.FileOf(wasm)
			err = add(name, f, ferr)
		}
	}
	if err != nil {
		return nil, err
	}
	so.Run = clientwire.RunBody{Args: o.Args, Env: o.Env, Memory: o.Memory, Handles: o.MaxHandles, Timeout: int64(o.Timeout)}
	s, err := rt.Dial(ctx, address, so)
	if err != nil {
		return nil, local("connect", err)
	}
	return &Client{s}, nil
}

// Context returns a context whose tasks run in the session.
func (c *Client) Context(ctx context.Context) context.Context { return rt.WithSession(ctx, c.s) }

// Close ends the session and what it still runs, and waits for that. Values that
// were got stay good. It may be called any number of times. Tasks and values that
// are asked for afterwards fail with [wray.ErrCanceled], until the process
// connects again: its own functions are not run instead.
func (c *Client) Close() error { return c.s.Close() }

// printer returns what prints a session's output. What goes to a terminal is
// stripped of what drives it, and so are names wherever they go.
func printer(own func(string, bool, []byte)) func(string, uint8, []byte) {
	if own != nil {
		var mu sync.Mutex
		return func(task string, stream uint8, p []byte) {
			mu.Lock()
			defer mu.Unlock()
			own(task, stream != clientwire.Stdout, p)
		}
	}
	return printTo(os.Stdout, os.Stderr, isTerminal(os.Stdout), isTerminal(os.Stderr))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func printTo(stdout, stderr io.Writer, outTTY, errTTY bool) func(string, uint8, []byte) {
	var mu sync.Mutex
	return func(task string, stream uint8, p []byte) {
		mu.Lock()
		defer mu.Unlock()
		w, tty := stdout, outTTY
		if stream != clientwire.Stdout {
			w, tty = stderr, errTTY
		}
		for line := range bytes.Lines(p) {
			if tty {
				line = plain.Text(line)
			}
			if task != "" {
				line = append([]byte("("+plain.Line(task)+") "), line...)
			}
			_, _ = w.Write(line)
		}
	}
}
