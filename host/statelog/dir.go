package statelog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray/internal/fd"
)

// Dir is a directory of logs: two files for each actor. One process has it at a
// time.
type Dir struct {
	path string
	lock *os.File

	mu   sync.Mutex
	open map[string]bool // guarded by mu; by name

	usage Usage     // guarded by mu, as is at
	at    time.Time // when it was counted; zero: never
}

// Usage is what the logs of a directory take.
type Usage struct {
	Actors int64
	Bytes  int64
}

// usageTime is how old a Usage may be, but for actors that were made since.
const usageTime = time.Second

// Usage returns what the logs take, as it was a second ago at most.
func (d *Dir) Usage() (Usage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.at.IsZero() && time.Since(d.at) < usageTime {
		return d.usage, nil
	}
	entries, err := os.ReadDir(filepath.Join(d.path, "actors"))
	if err != nil {
		return Usage{}, err
	}
	u, files := Usage{}, int64(0)
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return Usage{}, err
		}
		files++
		u.Bytes += info.Size()
	}
	u.Actors = (files + 1) / 2
	d.usage, d.at = u, time.Now()
	return u, nil
}

// Errors of Dir.
var (
	// ErrLocked says that another process has the directory.
	ErrLocked = errors.New("another node has the directory")
	// ErrOpen says that somebody has the actor's files.
	ErrOpen = errors.New("the actor runs in another job of this node")
)

// maxName bounds the names of actors.
const maxName = 1024

// OpenDir opens a directory of logs, and makes it where it is missing, but
// not what it is in. What is made in it is its user's alone.
func OpenDir(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{path, filepath.Join(path, "actors")} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := fd.TryLock(lock); err != nil {
		lock.Close()
		if errors.Is(err, fd.ErrLocked) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Dir{path: path, lock: lock, open: map[string]bool{}}, nil
}

// Close lets another process have the directory. It is idempotent.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock == nil {
		return nil
	}
	err := d.lock.Close()
	d.lock = nil
	return err
}

// Path returns the directory.
func (d *Dir) Path() string { return d.path }

// files returns where the logs of the actor lie.
func (d *Dir) files(name string) ([2]string, error) {
	if name == "" || len(name) > maxName {
		return [2]string{}, fmt.Errorf("an actor's name of %d bytes: 1 to %d are wanted", len(name), maxName)
	}
	// Readable, as far as it is harmless; the hash tells names apart.
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, name)
	sum := sha256.Sum256([]byte(name))
	base := filepath.Join(d.path, "actors", fmt.Sprintf("%s-%x", plain[:min(len(plain), 60)], sum[:12]))
	return [2]string{base + ".a", base + ".b"}, nil
}

// Open opens the files of the actor called name, and makes them where they are
// missing. They are not opened again before Release.
func (d *Dir) Open(name string) (files [2]*os.File, err error) {
	paths, err := d.files(name)
	if err != nil {
		return files, err
	}
	d.mu.Lock()
	taken := d.open[name]
	d.open[name] = true
	d.mu.Unlock()
	if taken {
		return files, ErrOpen
	}
	if files, err = d.take(paths); err != nil {
		d.Release(name)
	}
	return files, err
}

// Find is Open of an actor whose files are there; os.ErrNotExist: they are not.
func (d *Dir) Find(name string) (files [2]*os.File, err error) {
	paths, err := d.files(name)
	if err != nil {
		return files, err
	}
	if _, err := os.Lstat(paths[0]); err != nil {
		return files, err
	}
	return d.Open(name)
}

// take opens and locks the files of an actor that nobody else opens meanwhile.
func (d *Dir) take(paths [2]string) (files [2]*os.File, err error) {
	defer func() {
		if err != nil {
			for i, f := range files {
				if f != nil {
					f.Close()
					files[i] = nil
				}
			}
		}
	}()
	made := false
	for i, p := range paths {
		if _, err := os.Lstat(p); errors.Is(err, os.ErrNotExist) {
			made = true
		}
		if files[i], err = os.OpenFile(p, os.O_CREATE|os.O_RDWR|noFollow, 0o600); err != nil {
			return files, err
		}
	}
	// The lock is of the open file, so it is held for as long as anybody has the
	// descriptors: a worker, too, that has not noticed yet that its node is gone.
	if err = lockSoon(files[0]); err != nil {
		return files, fmt.Errorf("the actor's files are in use by a process that should be gone: %w", err)
	}
	if made { // a log is nothing without its name
		d.mu.Lock()
		d.usage.Actors++
		d.mu.Unlock()
		err = d.syncNames()
	}
	return files, err
}

// maxLinger is how long a worker may take to end whose node is gone.
const maxLinger = 5 * time.Second

// lockSoon locks a file, which somebody may be about to let go.
func lockSoon(f *os.File) error {
	for until := time.Now().Add(maxLinger); ; time.Sleep(5 * time.Millisecond) {
		err := fd.TryLock(f)
		if !errors.Is(err, fd.ErrLocked) || time.Now().After(until) {
			return err
		}
	}
}

// Release says that the files of the actor are closed.
func (d *Dir) Release(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, name)
}

// Remove removes the files of the actor. mine says that the caller has them
// open, and is done with them; ErrOpen: somebody else has.
func (d *Dir) Remove(name string, mine bool) error {
	paths, err := d.files(name)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[name] && !mine {
		return ErrOpen
	}
	delete(d.open, name)
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return d.syncNames()
}

// syncNames returns when the names of the files are on stable storage.
func (d *Dir) syncNames() error {
	f, err := os.Open(filepath.Join(d.path, "actors"))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
