// Package jobs keeps the jobs of a node that outlive who submitted them: which
// there are, how far they are, and the newest of what they printed, on disk, so
// that a node that starts again says what became of them. How a job runs is a
// function that it is given.
//
// What is in the directory is the node's user's alone, and is not read by guests:
// job/ID/record.json, and beside it the log (see log.go). damaged/ has those
// whose record could not be read.
package jobs

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/fd"
)

// Errors, to match with errors.Is.
var (
	// ErrNoJob says that no job has the ID, or not any more.
	ErrNoJob = errors.New("there is no such job")
	// ErrLocked says that another process has the directory.
	ErrLocked = errors.New("another node has the directory")
	// ErrClosed says that the node ends.
	ErrClosed = errors.New("the node is closing")
)

// Defaults and bounds.
const (
	DefaultLog  = 16 << 20 // bytes of a job's log
	DefaultKeep = 100      // jobs that have ended
	// MaxRunning is how many jobs of one tenant may be under way at once, MaxTotal
	// how many of all. A tenant that has fewer than Reserved is not refused because
	// of what others have: nobody takes all places.
	MaxRunning = 256
	MaxTotal   = 1024
	Reserved   = 16
	// MaxArgs is the bytes of a job's arguments and environment together.
	MaxArgs = 256 << 10
	// MaxName is the bytes of a job's name that are kept.
	MaxName = 256
)

// Config says where jobs are kept, and how they run.
type Config struct {
	Dir    string // made where it is missing; one process at a time has it
	Node   string // where the jobs run
	Tenant string // whose jobs those are whose records do not say
	Log    int64  // bytes kept of what a job prints; default DefaultLog
	Keep   int    // jobs of a tenant that have ended and are kept, with their logs; default DefaultKeep
	// Changed is told of each change of a job, of one job in order, under a lock:
	// it must not wait, nor call. gone is set for one that is forgotten. May be nil.
	Changed func(info clientwire.JobInfo, gone bool)
	Now     func() time.Time // default time.Now
	// Warn is told of jobs that Open cannot read. Nil drops that.
	Warn *slog.Logger
}

// Run runs a job to its end and returns its driver's exit code, or why there is
// none. It calls started when the modules are compiled, and output, by one
// goroutine at a time and no more when it has returned, with what the job prints.
type Run func(ctx context.Context, started func(), output func(task string, stream uint8, p []byte)) (exitCode int, err error)

// Jobs are the jobs of a node. Close them before what runs them.
type Jobs struct {
	cfg  Config
	lock *os.File
	most places // less in tests

	// Nobody waits for a disk under mu: the node asks for jobs under a lock of its
	// own.
	mu      sync.Mutex
	all     map[string]*job // guarded by mu; those that are on disk
	making  map[*job]bool   // guarded by mu; those that are not yet
	running map[string]int  // guarded by mu; under way or being made, by tenant
	total   int             // guarded by mu; of all tenants
	closed  bool            // guarded by mu
	wg      sync.WaitGroup  // jobs that run or are being made
}

// places are how many jobs may be under way: of a tenant, of all, and of a tenant
// whatever others have.
type places struct{ tenant, total, reserved int }

// job is one of them.
type job struct {
	dir  string
	done chan struct{} // closed when it has ended and is on disk

	// saving is held by who changes what is known of it, while that goes to disk.
	// It is taken before Jobs.mu.
	saving sync.Mutex

	// Guarded by Jobs.mu.
	info      clientwire.JobInfo
	cancel    context.CancelCauseFunc // nil of one that has ended
	forgotten bool                    // nobody is told of it any more

	logMu  sync.Mutex
	output *log  // guarded by logMu; nil until it is read or written
	gone   error // guarded by logMu; why it is not opened any more
}

// Reasons why a job is canceled.
var (
	errStopped = errors.New("it was stopped")
	errClosing = errors.New("its node was stopped")
)

// Open opens the jobs that a directory keeps. Those that were running when the
// process ended that had it are failed ones from then on.
func Open(cfg Config) (*Jobs, error) {
	if cfg.Log <= 0 {
		cfg.Log = DefaultLog
	}
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Warn == nil {
		cfg.Warn = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "job"), 0o700); err != nil {
		return nil, fmt.Errorf("the directory of jobs: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(cfg.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the directory of jobs: %w", err)
	}
	// Where there are no locks there are no nodes that others submit jobs to.
	if err := fd.TryLock(lock); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		lock.Close()
		if errors.Is(err, fd.ErrLocked) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("%s: %w", cfg.Dir, err)
	}
	j := &Jobs{cfg: cfg, lock: lock, most: places{MaxRunning, MaxTotal, Reserved}, all: map[string]*job{}, making: map[*job]bool{}, running: map[string]int{}}
	if err := j.load(); err != nil {
		lock.Close()
		return nil, err
	}
	return j, nil
}

// load reads what is kept.
func (j *Jobs) load() error {
	entries, err := os.ReadDir(filepath.Join(j.cfg.Dir, "job"))
	if err != nil {
		return fmt.Errorf("the directory of jobs: %w", err)
	}
	for _, e := range entries {
		b := &job{dir: filepath.Join(j.cfg.Dir, "job", e.Name()), done: make(chan struct{})}
		close(b.done)
		err := readRecord(b.dir, &b.info)
		if errors.Is(err, fs.ErrNotExist) {
			// It was being made or being forgotten when the process ended: a record
			// is the first that is there and the first that goes.
			_ = os.RemoveAll(b.dir)
			continue
		}
		if err == nil && b.info.ID != e.Name() {
			err = fmt.Errorf("it is the record of job %.60q", b.info.ID)
		}
		if err != nil {
			j.setAside(b.dir, err)
			continue
		}
		b.info.Tenant = cmp.Or(b.info.Tenant, j.cfg.Tenant)
		if !clientwire.JobEnded(b.info.State) {
			b.info.State, b.info.Ended = clientwire.JobFailed, j.now()
			b.info.Error = "the node ended while the job ran, and the job with it"
			b.info.Hint = "submit it again"
			keep(b.dir, &b.info)
		}
		j.all[b.info.ID] = b
	}
	j.forget()
	return nil
}

// setAside takes a job out of the way whose record cannot be read, with what it
// printed: neither the node nor its other jobs are worse for it.
func (j *Jobs) setAside(dir string, why error) {
	aside := filepath.Join(j.cfg.Dir, "damaged")
	to := filepath.Join(aside, filepath.Base(dir))
	err := os.MkdirAll(aside, 0o700)
	for i := 2; err == nil; i++ {
		if _, there := os.Lstat(to); errors.Is(there, fs.ErrNotExist) {
			err = cmp.Or(os.Rename(dir, to), syncDir(aside))
			break
		}
		to = filepath.Join(aside, fmt.Sprintf("%s.%d", filepath.Base(dir), i))
	}
	if err != nil {
		j.cfg.Warn.Warn("the record of a job is damaged, and the job is left out", "dir", dir, "err", why, "not moved", err)
		return
	}
	j.cfg.Warn.Warn("the record of a job is damaged, and the job was set aside", "dir", to, "err", why)
}

func (j *Jobs) now() int64 { return j.cfg.Now().UnixMilli() }

// newID returns a name for a job that no other job of any node has.
func newID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails
	return "job-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// CheckID reports whether a text is the ID of a job, or may be one's.
func CheckID(id string) bool {
	rest, ok := strings.CutPrefix(id, "job-")
	if !ok || len(rest) != 16 {
		return false
	}
	for _, c := range []byte(rest) {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// Submit accepts a job of a tenant and runs it. by says who submits it, or is empty. release
// is called when the job has ended, or at once where it is refused.
func (j *Jobs) Submit(tenant, name string, args []string, by string, run Run, release func()) (clientwire.JobInfo, error) {
	info, err := j.submit(tenant, name, args, by, run, release)
	if err != nil {
		release()
	}
	return info, err
}

func (j *Jobs) submit(tenant, name string, args []string, by string, run Run, release func()) (clientwire.JobInfo, error) {
	size := 0
	for _, a := range args {
		size += len(a)
	}
	if size > MaxArgs {
		return clientwire.JobInfo{}, &wray.Error{Code: wray.CodeLimitExceeded, Message: "the job's arguments are too long",
			Limit: &wray.Limit{Name: "argument bytes of a job", Value: MaxArgs, Unit: "bytes"}, Hint: "put what is long into a file that it is granted, or into its module"}
	}
	id := newID()
	b := &job{dir: filepath.Join(j.cfg.Dir, "job", id), done: make(chan struct{})}
	b.info = clientwire.JobInfo{ID: id, Tenant: tenant, Name: strings.ToValidUTF8(name[:min(len(name), MaxName)], ""), Args: args, Node: j.cfg.Node,
		State: clientwire.JobPending, Submitted: j.now(), By: by}
	if err := j.reserve(b); err != nil {
		return clientwire.JobInfo{}, err
	}
	err := os.Mkdir(b.dir, 0o700)
	if err == nil {
		err = writeRecord(b.dir, &b.info)
	}
	if err == nil {
		err = syncDir(filepath.Dir(b.dir))
	}
	if err == nil {
		b.output, err = openLog(b.dir, j.cfg.Log)
	}
	if err != nil {
		err = &wray.Error{Code: wray.CodeStoreFull, Message: fmt.Sprintf("the job cannot be kept: %v", err), Hint: "make room, or name another place with --jobs-dir"}
	}
	// Who is told of it finds it on disk.
	info, err := j.begin(b, err, run, release)
	if err != nil {
		b.closeLog(ErrNoJob)
		_ = os.RemoveAll(b.dir)
		j.wg.Done()
	}
	return info, err
}

// reserve takes a place for a job that is being made.
func (j *Jobs) reserve(b *job) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	full := func(name string, most int) error {
		return &wray.Error{Code: wray.CodeLimitExceeded, Message: "too many jobs run here",
			Limit: &wray.Limit{Name: name, Value: int64(most), Unit: "jobs"}, Hint: "wait until some have ended, or submit it to another node"}
	}
	n := j.running[b.info.Tenant]
	switch {
	case j.closed:
		return wray.Errorf(wray.CodeCanceled, "%v", ErrClosed)
	case n >= j.most.tenant:
		return full("jobs of a tenant on a node", j.most.tenant)
	case j.total >= j.most.total && n >= j.most.reserved:
		return full("jobs of a node, of all tenants", j.most.total)
	}
	j.running[b.info.Tenant]++
	j.total++
	j.making[b] = true
	j.wg.Add(1)
	return nil
}

// begin runs a job that was made, where err is nil and nothing has come between.
// Else its place is free again, and the caller removes what there is of it.
func (j *Jobs) begin(b *job, err error, run Run, release func()) (clientwire.JobInfo, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.making, b)
	switch {
	case err != nil:
	case j.closed:
		err = wray.Errorf(wray.CodeCanceled, "%v", ErrClosed)
	case b.forgotten:
		err = wray.Errorf(wray.CodeDenied, "tenant %s was removed while the job was submitted", b.info.Tenant)
	}
	if err != nil {
		j.leaveLocked(b)
		return clientwire.JobInfo{}, err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	b.cancel = cancel
	j.all[b.info.ID] = b
	j.tellLocked(b, false)
	info := b.info
	go func() {
		defer j.wg.Done()
		j.run(ctx, b, run, release)
	}()
	return info, nil
}

// leaveLocked gives a job's place back.
func (j *Jobs) leaveLocked(b *job) {
	j.total--
	if j.running[b.info.Tenant]--; j.running[b.info.Tenant] == 0 {
		delete(j.running, b.info.Tenant)
	}
}

// run runs a job, and notes how it ended.
func (j *Jobs) run(ctx context.Context, b *job, run Run, release func()) {
	defer close(b.done)
	defer release()
	started := func() {
		j.change(b, func(i *clientwire.JobInfo) {
			if i.State == clientwire.JobPending {
				i.State, i.Started = clientwire.JobRunning, j.now()
			}
		}, nil)
	}
	lost := false
	output := func(task string, stream uint8, p []byte) {
		if err := b.output.append(j.now(), task, stream, p); err != nil && !lost {
			lost = true
			j.change(b, func(i *clientwire.JobInfo) {
				i.Note = fmt.Sprintf("what it printed from then on is lost: %v", err)
			}, nil)
		}
	}
	code, err := run(ctx, started, output)
	cause := context.Cause(ctx)
	j.change(b, func(i *clientwire.JobInfo) {
		i.Ended, i.ExitCode = j.now(), code
		switch {
		case err == nil && code == 0:
			i.State = clientwire.JobSucceeded
		case err == nil:
			i.State, i.Error = clientwire.JobFailed, fmt.Sprintf("its driver ended with exit code %d", code)
		case errors.Is(cause, errStopped):
			i.State = clientwire.JobStopped
		case errors.Is(cause, errClosing):
			i.State, i.Error, i.Hint = clientwire.JobFailed, "its node was stopped, and the job with it", "submit it again"
		default:
			i.State = clientwire.JobFailed
			describe(i, err)
		}
	}, func() {
		b.cancel(nil)
		b.cancel = nil
		j.leaveLocked(b)
		b.output.end() // who has read all of it finds how the job ended
	})
	j.forget()
}

// describe takes an error apart for who reads it elsewhere.
func describe(i *clientwire.JobInfo, err error) {
	i.Error = bounded(err.Error())
	e := (*wray.Error)(nil)
	if !errors.As(err, &e) {
		return
	}
	for c := e; c != nil; c = c.Cause {
		i.Hint = cmp.Or(i.Hint, bounded(c.Hint))
		if i.Trace == "" && c.Trace != "" {
			i.Trace, i.TraceOf = bounded(c.Trace), clientwire.TraceOf(c.Code)
		}
	}
}

// maxText bounds what a job's record has of an error, in bytes.
const maxText = 16 << 10

func bounded(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxText)], "\uFFFD") }

// change changes what is known of a job that runs: on disk first, and then for
// whoever asks, who is told what outlasts the process. Where the disk takes
// nothing, this process knows it all the same. with, which may be nil, is called
// under mu, in one with that.
func (j *Jobs) change(b *job, f func(*clientwire.JobInfo), with func()) {
	b.saving.Lock()
	defer b.saving.Unlock()
	j.mu.Lock()
	next := b.info // which nobody else changes
	j.mu.Unlock()
	f(&next)
	keep(b.dir, &next)
	j.mu.Lock()
	defer j.mu.Unlock()
	b.info = next
	if with != nil {
		with()
	}
	j.tellLocked(b, false)
}

// keep puts what is known of a job on disk, or notes that it is not there.
func keep(dir string, i *clientwire.JobInfo) {
	if err := writeRecord(dir, i); err != nil && i.Note == "" {
		i.Note = fmt.Sprintf("how it goes on is not on disk: %v", err)
	}
}

func (j *Jobs) tellLocked(b *job, gone bool) {
	if j.cfg.Changed != nil && !b.forgotten {
		j.cfg.Changed(b.info, gone)
	}
}

// forget removes those that ended first, beyond Keep of each tenant.
func (j *Jobs) forget() {
	for _, b := range j.takeOld() {
		b.remove()
	}
}

// takeOld takes out those that are to be forgotten: nobody is told of them any
// more, and the caller has what is on disk.
func (j *Jobs) takeOld() (old []*job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	ended := map[string][]*job{}
	for _, b := range j.all {
		if clientwire.JobEnded(b.info.State) {
			ended[b.info.Tenant] = append(ended[b.info.Tenant], b)
		}
	}
	for _, list := range ended {
		if len(list) <= j.cfg.Keep {
			continue
		}
		slices.SortFunc(list, func(a, b *job) int {
			return cmp.Or(cmp.Compare(a.info.Ended, b.info.Ended), cmp.Compare(a.info.ID, b.info.ID))
		})
		for _, b := range list[:len(list)-j.cfg.Keep] {
			delete(j.all, b.info.ID)
			j.tellLocked(b, true)
			old = append(old, b)
		}
	}
	return old
}

// remove removes what is on disk of a job that is not in Jobs.all any more, and
// has ended.
func (b *job) remove() {
	_ = os.Remove(filepath.Join(b.dir, recordFile)) // first: see load
	_ = os.RemoveAll(b.dir)
	b.closeLog(ErrNoJob)
}

// Forget has jobs that match be as if they had never been, at once; those that run
// are stopped. What is on disk of them is gone when the returned function has
// been called.
func (j *Jobs) Forget(matches func(*clientwire.JobInfo) bool) (finish func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var list []*job
	for id, b := range j.all {
		if !matches(&b.info) {
			continue
		}
		list = append(list, b)
		delete(j.all, id)
		j.tellLocked(b, true)
		b.forgotten = true
		if b.cancel != nil {
			b.cancel(errStopped)
		}
	}
	for b := range j.making {
		if matches(&b.info) {
			b.forgotten = true // who makes it removes it
		}
	}
	return func() {
		for _, b := range list {
			<-b.done
			b.remove()
		}
	}
}

// get returns a job of a tenant; empty: whosever it is. That of another is as one
// that is not there.
func (j *Jobs) get(tenant, id string) (*job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.all[id]
	if b == nil || tenant != "" && b.info.Tenant != tenant {
		return nil, NoJob(id)
	}
	return b, nil
}

// NoJob is the error about an ID that no job has. It matches ErrNoJob.
func NoJob(id string) error {
	return &noJob{&wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is no job %.60q, or not any more", id), Hint: "see wray job list"}}
}

type noJob struct{ why *wray.Error }

func (e *noJob) Error() string        { return e.why.Error() }
func (e *noJob) Is(target error) bool { return target == ErrNoJob }
func (e *noJob) Unwrap() error        { return e.why }

// Get returns a job of a tenant; with an empty one, whosever it is.
func (j *Jobs) Get(tenant, id string) (clientwire.JobInfo, error) {
	b, err := j.get(tenant, id)
	if err != nil {
		return clientwire.JobInfo{}, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return b.info, nil
}

// List returns the jobs of a tenant, the newest first.
func (j *Jobs) List(tenant string) []clientwire.JobInfo {
	return slices.DeleteFunc(j.All(), func(i clientwire.JobInfo) bool { return i.Tenant != tenant })
}

// All returns the jobs of all tenants, the newest first.
func (j *Jobs) All() []clientwire.JobInfo {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := make([]clientwire.JobInfo, 0, len(j.all))
	for _, b := range j.all {
		list = append(list, b.info)
	}
	Sort(list)
	return list
}

// Sort puts jobs in the order of listings, the newest first.
func Sort(list []clientwire.JobInfo) {
	slices.SortFunc(list, func(a, b clientwire.JobInfo) int {
		return cmp.Or(cmp.Compare(b.Submitted, a.Submitted), cmp.Compare(a.ID, b.ID))
	})
}

// Stop ends a job of a tenant, or with an empty one whosever it is, and waits for
// its end. That it has ended is no error.
func (j *Jobs) Stop(ctx context.Context, tenant, id string) (clientwire.JobInfo, error) {
	b, err := j.get(tenant, id)
	if err != nil {
		return clientwire.JobInfo{}, err
	}
	j.mu.Lock()
	if b.cancel != nil {
		b.cancel(errStopped)
	}
	j.mu.Unlock()
	select {
	case <-b.done:
	case <-ctx.Done():
		return clientwire.JobInfo{}, wray.Errorf(wray.CodeCanceled, "job %s is being stopped", id)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return b.info, nil
}

// Logs returns a part of what a job of a tenant, or with an empty one whosever,
// printed, from an offset on. Where there is
// nothing yet and wait is set, it waits for more, or for the job's end.
func (j *Jobs) Logs(ctx context.Context, tenant, id string, offset int64, wait bool) (clientwire.JobLogs, error) {
	b, err := j.get(tenant, id)
	if err != nil {
		return clientwire.JobLogs{}, err
	}
	l, err := b.log(j.cfg.Log)
	if err != nil {
		return clientwire.JobLogs{}, err
	}
	for {
		part, more, err := l.read(offset)
		if errors.Is(err, ErrOffset) {
			return part, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("job %s: %v", id, err), Hint: "begin with offset 0, and go on with the offset that the last answer gave"}
		}
		if err != nil || len(part.Parts) > 0 || part.Dropped > 0 || more == nil || !wait {
			return part, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return part, wray.Errorf(wray.CodeCanceled, "nobody waits any more for what job %s prints", id)
		}
	}
}

// log opens the log of a job that ended before the process began.
func (b *job) log(limit int64) (*log, error) {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	if b.output == nil && b.gone == nil {
		l, err := openLog(b.dir, limit)
		if err != nil {
			return nil, fmt.Errorf("the log of job %s: %w", filepath.Base(b.dir), err)
		}
		l.end()
		b.output = l
	}
	return b.output, b.gone
}

func (b *job) closeLog(why error) {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	if b.output != nil {
		b.output.close()
	}
	b.output, b.gone = nil, why
}

// Close ends the jobs that run, and waits for them. It is idempotent.
func (j *Jobs) Close() error {
	j.mu.Lock()
	closed := j.closed
	j.closed = true
	for _, b := range j.all {
		if b.cancel != nil {
			b.cancel(errClosing)
		}
	}
	j.mu.Unlock()
	j.wg.Wait()
	if closed {
		return nil
	}
	for _, b := range j.all { // nobody changes it any more
		b.closeLog(ErrClosed)
	}
	return j.lock.Close()
}
