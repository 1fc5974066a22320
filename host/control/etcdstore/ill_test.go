package etcdstore

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
	"go.uber.org/zap"
)

// locked is a buffer that several write to.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// waiting is a context that says when it is first waited for.
type waiting struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func (w *waiting) Done() <-chan struct{} {
	w.once.Do(func() { close(w.waits) })
	return w.Context.Done()
}

// fatally has etcd's logger take something for the end of the process.
func fatally(s *Store, level func(*zap.Logger) func(string, ...zap.Field), message string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		level(s.local.server.Logger())(message, zap.Error(errors.New("too many open files")))
		panic("it went on")
	}()
	<-done
}

// What etcd takes for the end of the process ends neither the process nor, where
// it only tidied up, the control state; else the store says what has happened.
func TestFatal(t *testing.T) {
	var log locked
	o := Options{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fatal := func(l *zap.Logger) func(string, ...zap.Field) { return l.Fatal }
	fatally(s, fatal, "failed to purge wal file")
	if _, err := s.List(ctx, control.ListRequest{}); err != nil {
		t.Errorf("after a purge that failed: %v", err)
	}
	if !strings.Contains(log.String(), "stay until this node starts again") {
		t.Errorf("the log says nothing of it:\n%s", log.String())
	}
	w, err := s.Watch(ctx, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	in := &waiting{Context: ctx, waits: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := w.Next(in)
		ended <- err
	}()
	<-in.waits
	fatally(s, func(l *zap.Logger) func(string, ...zap.Field) { return l.Panic }, "failed to save snapshot")
	says := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, control.ErrUnavailable) || !strings.Contains(err.Error(), "failed to save snapshot: too many open files") {
			t.Errorf("%s of a member that has ended: %v", what, err)
		}
	}
	select {
	case err := <-ended:
		says("a watch", err)
	case <-time.After(10 * time.Second):
		t.Error("a watch of a member that has ended waits on")
		w.Close()
	}
	_, err = w.Next(ctx)
	says("a watch that goes on", err)
	_, err = s.Watch(ctx, "a", 1)
	says("another watch", err)
	_, err = s.List(ctx, control.ListRequest{})
	says("a list", err)
	if !strings.Contains(log.String(), "keeps it no more") {
		t.Errorf("the log says nothing of it:\n%s", log.String())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if s, err = Start(ctx, o); err != nil { // what it kept is whole
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
