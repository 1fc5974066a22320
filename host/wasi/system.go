package wasi

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of a System. Zero fields take the defaults.
type Limits struct {
	// MaxFiles bounds the descriptors a guest may have opened itself.
	MaxFiles int
	// MaxReadWrite bounds the bytes of one read or write. A longer one is cut
	// short, as every program must expect.
	MaxReadWrite int
	// MaxRandom bounds the bytes of one random_get, which cannot be cut short;
	// beyond it is EINVAL.
	MaxRandom int
	// MaxSubscriptions bounds the subscriptions of one poll_oneoff; beyond it
	// is EINVAL.
	MaxSubscriptions int
	// MaxAllocate bounds the bytes of one fd_allocate, the one call that takes
	// disk space without writing; beyond it is EFBIG. How much a guest may
	// write in all is for a quota on the file system to say.
	MaxAllocate int64
}

// Default limits.
const (
	DefaultMaxFiles         = 64
	DefaultMaxReadWrite     = 4 << 20
	DefaultMaxRandom        = 64 << 20
	DefaultMaxAllocate      = 1 << 30
	DefaultMaxSubscriptions = 1024
)

// Fixed limits.
const (
	MaxPath = 4096    // bytes of a path or of a symbolic link's target, as in Linux
	MaxArgs = 1 << 20 // bytes of all arguments, or of the environment, with their zero bytes
	maxIovs = 1024    // buffers of one read or write, as in Linux

	// hostFiles is the room in the table for files the host installs.
	hostFiles = 8
)

func (l *Limits) ensureDefaults() {
	set := func(p *int, def int) {
		if *p <= 0 {
			*p = def
		}
	}
	set(&l.MaxFiles, DefaultMaxFiles)
	set(&l.MaxReadWrite, DefaultMaxReadWrite)
	set(&l.MaxRandom, DefaultMaxRandom)
	set(&l.MaxSubscriptions, DefaultMaxSubscriptions)
	if l.MaxAllocate <= 0 {
		l.MaxAllocate = DefaultMaxAllocate
	}
}

// Dir grants a directory to the guest as a preopened descriptor.
type Dir struct {
	// GuestPath is the name the guest knows the directory by, such as "/data".
	GuestPath string
	// ReadOnly refuses every change with EROFS before FS is asked.
	ReadOnly bool
	// Symlinks lets the guest make symbolic links. A target must be relative
	// and stay inside the directory; but a link can be moved, so programs of
	// the host that follow links should not work there.
	Symlinks bool
	// FS opens files in the directory. It outlives the System.
	FS FS
}

// Interest is one thing a parked guest waits for.
type Interest struct {
	File  File
	Write bool // until File can be written; else until it can be read
}

// Poller is where a sandbox waits.
type Poller interface {
	// Wait parks the caller until one of files may be ready, the monotonic
	// clock has reached deadline (-1: no deadline), or the wait is over for
	// another reason, and returns Success; the System then looks again, and
	// waits again where nothing came. An errno ends the guest's call with it:
	// ECANCELED for a guest that is to stop. (A Go guest dies of any errno but
	// EINTR in poll_oneoff; make a file ready to tell it something.) Wait may
	// run the guest again, in nested calls that end before it returns. It does
	// not keep files.
	Wait(deadline int64, files []Interest) Errno
}

// Config is what one sandbox is granted. Functions are called on the
// sandbox's goroutine. The System keeps the slices until its next Reset or
// Close; the caller must not change them meanwhile.
type Config struct {
	Args []string // args[0] is the program's name
	Env  []string // "key=value"

	// Stdin is descriptor 0; nil is an empty file. It is closed by the System.
	Stdin File
	// StdinFlags are its flags, such as FdNonblock.
	StdinFlags Fdflags
	// Stdout and Stderr take what the guest writes to descriptors 1 and 2. They
	// must not keep p, may take less than all, and may wait: that is how output
	// is slowed down. nil drops everything.
	Stdout, Stderr func(p []byte) (n int, err error)

	// Dirs are the preopened directories, from descriptor 3 on.
	Dirs []Dir

	Limits Limits

	// Random fills p with bytes no guest can predict.
	Random func(p []byte)
	// WallClock returns nanoseconds since 1970.
	WallClock func() int64
	// MonoClock returns nanoseconds of the guest's own clock, which never goes
	// back and which Poller.Wait's deadlines are on.
	MonoClock func() int64
	// CPUClock returns nanoseconds of processor time; nil: those of MonoClock
	// since Reset.
	CPUClock func() int64
	// Resolution is the step of all clocks in nanoseconds; 0: 1 µs.
	Resolution int64

	Poller Poller
	// Exit ends the guest. It does not return: it panics, and the panic passes
	// through Func.Call.
	Exit func(code uint32)
	// Yield gives other sandboxes a turn; nil does nothing. It is also called
	// within long copies, and may panic to end the guest.
	Yield func()
}

func (c *Config) check() error {
	switch {
	case c.Random == nil:
		return errors.New("wasi: Config.Random is nil")
	case c.WallClock == nil:
		return errors.New("wasi: Config.WallClock is nil")
	case c.MonoClock == nil:
		return errors.New("wasi: Config.MonoClock is nil")
	case c.Poller == nil:
		return errors.New("wasi: Config.Poller is nil")
	case c.Exit == nil:
		return errors.New("wasi: Config.Exit is nil")
	}
	if err := checkStrings("argument", c.Args); err != nil {
		return err
	}
	if err := checkStrings("environment variable", c.Env); err != nil {
		return err
	}
	for i := range c.Dirs {
		d := &c.Dirs[i]
		if d.FS == nil {
			return fmt.Errorf("wasi: directory %q has no FS", d.GuestPath)
		}
		if d.GuestPath == "" || len(d.GuestPath) > MaxPath || strings.IndexByte(d.GuestPath, 0) >= 0 {
			return fmt.Errorf("wasi: %q is no path for a directory", d.GuestPath)
		}
	}
	return nil
}

func checkStrings(what string, list []string) error {
	size := 0
	for i, s := range list {
		if strings.IndexByte(s, 0) >= 0 {
			return fmt.Errorf("wasi: %s %d has a zero byte", what, i)
		}
		size += len(s) + 1
		if size > MaxArgs {
			return fmt.Errorf("wasi: %ss of more than %d bytes", what, MaxArgs)
		}
	}
	return nil
}

// System is the state of one sandbox: its descriptors, and what it is
// granted. The zero System refuses every call with ECANCELED until Reset.
type System struct {
	cfg  Config
	live bool

	// fds is the table of descriptors, of at most room. Its capacity is no
	// less, so pointers into it stay good.
	fds    []slot
	room   int
	opened int // descriptors with guest set

	stdout, stderr sink

	monoStart int64 // MonoClock at Reset
	monoLast  int64 // what the guest was told last; the clock never goes back
	clockRead bool  // see ClockRead
	moved     uint64

	waiting []Interest // scratch of poll_oneoff; taken while in use, since calls nest
	path    []byte     // scratch of resolve
}

// slot is one descriptor. The zero slot is free.
type slot struct {
	used    bool
	dir     bool
	preopen bool
	guest   bool // opened by the guest: counts against MaxFiles
	ro      bool // on a read-only grant
	mount   int  // index in cfg.Dirs, where disk or dir is set
	flags   Fdflags
	base    Rights
	inherit Rights
	path    string // of a directory: where it is in its mount, cleaned

	file File      // nil for a directory
	disk *diskFile // of a regular file or directory; nil for a preopen not used yet
}

// Reset closes everything the System has open and begins anew with cfg. It
// allocates nothing once the table has its size.
func (s *System) Reset(cfg *Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	s.closeAll()
	s.cfg = *cfg
	s.cfg.Limits.ensureDefaults()
	if s.cfg.Resolution <= 0 {
		s.cfg.Resolution = 1000
	}
	s.room = 3 + len(cfg.Dirs) + s.cfg.Limits.MaxFiles + hostFiles
	if cap(s.fds) < s.room {
		s.fds = make([]slot, 0, s.room)
	}

	in := cfg.Stdin
	if in == nil {
		in = empty
	}
	s.stdout.write = cfg.Stdout
	s.stderr.write = cfg.Stderr
	s.fds = append(s.fds,
		slot{used: true, file: in, flags: cfg.StdinFlags, base: rightsStream &^ RightFdWrite},
		slot{used: true, file: &s.stdout, base: rightsStream &^ RightFdRead},
		slot{used: true, file: &s.stderr, base: rightsStream &^ RightFdRead},
	)
	for i := range cfg.Dirs {
		s.fds = append(s.fds, slot{
			used: true, dir: true, preopen: true, mount: i, ro: cfg.Dirs[i].ReadOnly,
			base: rightsDir, inherit: rightsDir | rightsFile, path: ".",
		})
	}
	s.monoStart = cfg.MonoClock()
	s.monoLast = 0
	s.clockRead = false
	s.moved = 0
	s.live = true
	return nil
}

// Close closes everything the System has open and forgets what it was
// granted. Further calls return ECANCELED.
func (s *System) Close() {
	s.closeAll()
	s.cfg = Config{}
	s.stdout.write, s.stderr.write = nil, nil
	s.live = false
}

func (s *System) closeAll() {
	for i := range s.fds {
		if s.fds[i].used {
			s.release(&s.fds[i])
		}
	}
	s.fds = s.fds[:0]
	s.opened = 0
}

// release closes what is in sl and frees it.
func (s *System) release(sl *slot) Errno {
	var e Errno
	switch {
	case sl.disk != nil:
		e = sl.disk.Close()
	case sl.file != nil:
		e = sl.file.Close()
	}
	if sl.guest {
		s.opened--
	}
	*sl = slot{}
	return e
}

// TakeMoved returns how many bytes calls have copied between guest and host
// since it was last asked, so that they can be charged for.
func (s *System) TakeMoved() uint64 {
	n := s.moved
	s.moved = 0
	return n
}

// StdinFlags returns the flags of descriptor 0.
func (s *System) StdinFlags() Fdflags {
	if sl, e := s.get(0); e == Success {
		return sl.flags
	}
	return 0
}

// Install gives the guest a descriptor for f, with flags such as FdNonblock.
// The System closes f when the guest closes the descriptor, and at Reset.
// There is room for 8 such files; then EMFILE.
func (s *System) Install(f File, flags Fdflags) (fd uint32, e Errno) {
	if !s.live {
		return 0, ECANCELED
	}
	fd, sl := s.alloc()
	if sl == nil {
		return 0, EMFILE
	}
	*sl = slot{used: true, file: f, flags: flags, base: rightsStream}
	return fd, Success
}

// alloc returns the lowest free descriptor, or nil where the table is full.
// The caller fills the slot before anything else is called.
func (s *System) alloc() (uint32, *slot) {
	for i := range s.fds {
		if !s.fds[i].used {
			return uint32(i), &s.fds[i]
		}
	}
	if len(s.fds) == s.room {
		return 0, nil
	}
	s.fds = append(s.fds, slot{})
	return uint32(len(s.fds) - 1), &s.fds[len(s.fds)-1]
}

// get returns the slot of fd.
func (s *System) get(fd uint64) (*slot, Errno) {
	n := uint32(fd)
	if uint64(n) >= uint64(len(s.fds)) || !s.fds[n].used {
		return nil, EBADF
	}
	return &s.fds[n], Success
}

// getWith returns the slot of fd if it has all of need. What reads and writes
// lack is EBADF, as in POSIX; the rest is ENOTCAPABLE.
func (s *System) getWith(fd uint64, need Rights) (*slot, Errno) {
	sl, e := s.get(fd)
	if e != Success {
		return nil, e
	}
	if missing := need &^ sl.base; missing != 0 {
		if missing&(RightFdRead|RightFdWrite) != 0 {
			return nil, EBADF
		}
		return nil, ENOTCAPABLE
	}
	return sl, Success
}

// onDisk returns the open file of sl, opening a preopened directory at its
// first use, or errno otherwise for a stream.
func (s *System) onDisk(sl *slot, otherwise Errno) (*diskFile, Errno) {
	if sl.disk != nil {
		return sl.disk, Success
	}
	if !sl.dir {
		return nil, otherwise
	}
	f, e := s.cfg.Dirs[sl.mount].FS.Open(sl.path, OpenRead|OpenDirectory)
	if e != Success {
		return nil, e
	}
	d, e := newDiskFile(f, false)
	if e != Success {
		return nil, e
	}
	if !d.dir {
		d.Close()
		return nil, ENOTDIR
	}
	sl.disk = d
	return d, Success
}

// await parks the guest until f may be ready. It serves reads and writes of
// streams that are not in non-blocking mode.
func (s *System) await(f File, write bool) Errno {
	w := append(s.waiting[:0], Interest{File: f, Write: write})
	s.waiting = nil
	e := s.cfg.Poller.Wait(-1, w)
	clear(w)
	s.waiting = w[:0]
	return e
}
