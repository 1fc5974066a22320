package etcdstore

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap/zapcore"
)

// illStop is how long an etcd that is ill may take to stop.
const illStop = 5 * time.Second

// illness is what etcd takes for the end of its process, which has more to do
// than to keep the control state: the goroutine ends that cannot go on, and with
// it, but for one that only tidies up, this member.
type illness struct {
	dir   string
	log   *slog.Logger
	ended chan struct{} // closed with the first that ends the member

	mu   sync.Mutex
	err  error  // guarded by mu; nil: it is well
	stop func() // guarded by mu; called with ended, on a goroutine of its own
}

// tidies are what is left undone without harm: files that are of no use any more
// stay until the node starts again.
func tidies(message string) bool { return strings.HasPrefix(message, "failed to purge ") }

// OnWrite implements zapcore.CheckWriteHook. It does not return.
func (i *illness) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	why := e.Message
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			why += ": " + err.Error()
		}
	}
	i.note(e.Message, why)
	runtime.Goexit() // deferred calls run; nobody goes on with what has failed
}

// note takes note that something has failed.
func (i *illness) note(message, why string) {
	if tidies(message) {
		if i.log != nil {
			i.log.Error("control state: files that it does not need stay until this node starts again", "dir", i.dir, "err", why)
		}
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return
	}
	i.err = fmt.Errorf("this head's part of it, in %s, has stopped: %s; mend that, and start this node again", i.dir, why)
	close(i.ended)
	if i.stop != nil {
		go i.stop()
	}
	if i.log != nil {
		i.log.Error("control state: this head keeps it no more", "dir", i.dir, "err", why)
	}
}

// end has stop called when the member has ended.
func (i *illness) end(stop func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stop = stop; i.err != nil {
		go stop()
	}
}

// Err returns why the member has ended, nil where it has not or there is none.
func (i *illness) Err() error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

// Ended returns what is closed when the member has ended; nil, which never is, where
// there is none.
func (i *illness) Ended() <-chan struct{} {
	if i == nil {
		return nil
	}
	return i.ended
}

// startEtcd is embed.StartEtcd on a goroutine that may end.
func startEtcd(cfg *embed.Config, ill *illness) (e *embed.Etcd, err error) {
	done := make(chan struct{})
	err = errors.New("it stopped: see its log")
	go func() {
		defer close(done)
		e, err = embed.StartEtcd(cfg)
	}()
	<-done
	if illErr := ill.Err(); illErr != nil {
		if e != nil {
			go e.Close() // it may keep locks for ever
		}
		return nil, illErr
	}
	return e, err
}
