// Package codecache keeps compiled modules on disk, so that a module is
// compiled once on a machine and tenant.
//
// What is kept is native code, which the engine maps and runs after checking
// no more than a CRC. So the directory is the user's alone, and every entry has
// a manifest with a MAC made with a key that only the node holds: a worker is
// pointed to an entry only after the node has checked it. Entries are never
// shared between tenants.
//
// Compilation happens in a process of its own (see [Compiler]): a module can
// make a compiler take seconds and gigabytes, or take it over. The compiler
// writes into a private directory that was empty; the node looks at what is
// there once the process is dead, names it, hashes it, and moves it in.
//
//	<root>/key                        the node's key
//	<root>/locks/<n>                  locks between processes
//	<root>/code/<tenant>/             the engine's cache directory, all that a worker may read
//	    wazero-<version>-…/<hash>     native code, named by the engine
//	    <id>.artifact                 what the compiler wrote beside it
//	    <id>.json                     manifest: hashes of both, or why the module was refused
//	    compile-<random>/             a compiler's private directory
package codecache

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// Config configures a Cache.
type Config struct {
	Root string // the cache directory; made with mode 0700
	// Identity is what, beside the module and this machine's processor, compiled
	// code depends on: versions of the passes and the engine, and its settings.
	Identity string
	Compiler Compiler
	MaxBytes int64 // of entries for each tenant; 0: 4 GiB
}

// Cache is a directory of compiled modules. Its methods may be called from
// many goroutines, and other processes may use the same directory.
type Cache struct {
	cfg      Config
	identity string // Config.Identity and the processor's
	program  string // which build of this program refuses modules
	key      []byte
	watch    watch

	mu      sync.Mutex
	flights map[string]*flight // guarded by mu; by tenant and id
	closed  bool               // guarded by mu
	running sync.WaitGroup     // of flights
}

// watch is told of what no caller sees, for tests that await it. Both may be nil.
type watch struct {
	compiling func(out string) // a compiler is about to start with that private directory
	joined    func()           // a caller waits for a compilation
}

// Entry is a compiled module that has been checked.
type Entry struct {
	CacheDir     string            // the engine's cache directory
	NativePath   string            // the compiled code in it
	ArtifactPath string            // what the compiler wrote beside it
	Module       [sha256.Size]byte // hash of the module's bytes
}

const defaultMaxBytes = 4 << 30

// ErrClosed means that the cache was closed.
var ErrClosed = errors.New("code cache closed")

// Open opens the cache, and makes it when it is not there.
func Open(cfg Config) (*Cache, error) {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	for _, dir := range []string{cfg.Root, filepath.Join(cfg.Root, "locks"), filepath.Join(cfg.Root, "code")} {
		if err := privateDir(dir); err != nil {
			return nil, err
		}
	}
	key, err := loadKey(filepath.Join(cfg.Root, "key"))
	if err != nil {
		return nil, err
	}
	return &Cache{
		cfg: cfg, identity: cfg.Identity + " " + processor(), program: program(),
		key: key, flights: map[string]*flight{},
	}, nil
}

// Close cancels compilations under way and waits for them. Later calls fail
// with ErrClosed.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	for _, f := range c.flights {
		f.cancel()
	}
	c.mu.Unlock()
	c.running.Wait()
	return nil
}

// privateDir makes a directory that only this user can use, or checks that it
// is one.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the code cache: %w", err)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if err := checkOwner(dir, st); err != nil {
		return err
	}
	if open(st) {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("the code cache %s is open to others: %w", dir, err)
		}
	}
	return nil
}

func open(st fs.FileInfo) bool { return filePermissions && st.Mode().Perm()&0o077 != 0 }

// loadKey reads the key, and draws one when there is none. Two processes that
// do so at once agree on one.
func loadKey(path string) ([]byte, error) {
	for {
		key, err := readKey(path)
		if !errors.Is(err, os.ErrNotExist) {
			return key, err
		}
		key = make([]byte, sha256.Size)
		if _, err := rand.Read(key); err != nil {
			return nil, err
		}
		tmp, err := os.CreateTemp(filepath.Dir(path), "key-*") // with mode 0600
		if err != nil {
			return nil, fmt.Errorf("keep the code cache's key: %w", err)
		}
		_, werr := tmp.Write(key)
		if err := errors.Join(werr, tmp.Sync(), tmp.Close()); err != nil {
			os.Remove(tmp.Name())
			return nil, fmt.Errorf("keep the code cache's key: %w", err)
		}
		err = os.Link(tmp.Name(), path) // fails where another was first
		os.Remove(tmp.Name())
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("keep the code cache's key: %w", err)
		}
	}
}

func readKey(path string) ([]byte, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || open(st) {
		return nil, fmt.Errorf("the code cache's key %s has mode %v, and others may know it: remove it and the directory code beside it", path, st.Mode())
	}
	if err := checkOwner(path, st); err != nil {
		return nil, err
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the code cache's key: %w", err)
	}
	if len(key) != sha256.Size {
		return nil, fmt.Errorf("the code cache's key %s is damaged: remove it and the directory code beside it", path)
	}
	return key, nil
}

// tenantName is a tenant's name, and after an @ what tells it from another that had
// the name.
var tenantName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}(@[0-9a-f]{1,16})?$`)

// Remove removes what is kept of a tenant, for which no call is under way and none
// follows.
func (c *Cache) Remove(tenant string) error {
	if !tenantName.MatchString(tenant) {
		return fmt.Errorf("%q is no name for a tenant", tenant)
	}
	c.mu.Lock()
	var waits []*flight
	for key, f := range c.flights {
		if strings.HasPrefix(key, tenant+"/") {
			f.cancel() // nobody waits for it
			waits = append(waits, f)
		}
	}
	c.mu.Unlock()
	for _, f := range waits {
		<-f.done
	}
	return os.RemoveAll(filepath.Join(c.cfg.Root, "code", tenant))
}

// Dir returns the engine's cache directory of a tenant, which exists. A worker
// of the tenant may read it and nothing else.
func (c *Cache) Dir(tenant string) (string, error) {
	if !tenantName.MatchString(tenant) {
		return "", fmt.Errorf("%q is no name for a tenant: want up to 63 of a-z 0-9 . _ -, the first a letter or digit", tenant)
	}
	dir := filepath.Join(c.cfg.Root, "code", tenant)
	return dir, privateDir(dir)
}

// Get returns the compiled form of a module, and compiles it when there is
// none that is whole. A module that was refused is refused again, at once,
// with the same *wray.Error. Concurrent calls for one module compile it once,
// in this process and among processes; the compilation ends early when no
// caller waits for it any more.
func (c *Cache) Get(ctx context.Context, tenant string, module []byte) (Entry, error) {
	dir, err := c.Dir(tenant)
	if err != nil {
		return Entry{}, err
	}
	u := c.unit(tenant, dir, module)
	e, err := c.lookup(u)
	if !errors.Is(err, errMissing) {
		return e, err
	}
	return c.fly(ctx, u, module)
}
