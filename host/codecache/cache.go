// Package codecache keeps compiled modules on disk, so that a module is
// compiled once on a machine and tenant.
//
// What is kept is native code, which the engine maps and runs after checking
// no more than a CRC. So the directory is the user's alone, and every entry
// carries a MAC made with a key that only the node holds: a worker is pointed
// to an entry only after the node has checked it. Entries are never shared
// between tenants.
//
// Compilation happens in a process of its own (see [Compiler]): a module can
// make a compiler take seconds and gigabytes, or break it.
package codecache

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/wray-project/wray"
)

// Config configures a Cache.
type Config struct {
	Root     string // the cache directory; made with mode 0700
	Identity string // what, beside the module, compiled code depends on
	Compiler Compiler
	MaxBytes int64 // of entries for each tenant; 0: 4 GiB
}

// Cache is a directory of compiled modules. Its methods may be called from
// many goroutines, and other processes may use the same directory.
type Cache struct {
	cfg Config
	key []byte

	mu      sync.Mutex
	flights map[string]*flight // guarded by mu; by tenant and module
}

// flight is a look-up or compilation under way that others wait for.
type flight struct {
	done  chan struct{}
	entry Entry
	err   error
}

// Entry is a compiled module that has been checked.
type Entry struct {
	CacheDir     string // the engine's cache directory
	NativePath   string // the compiled code in it
	ArtifactPath string // what the compiler wrote beside it
}

// manifest is what is known of an entry. It stands in a file beside it.
type manifest struct {
	Module       string      `json:"module"`   // SHA-256
	Identity     string      `json:"identity"` // Config.Identity
	Native       string      `json:"native"`   // path below the engine's cache directory
	NativeHash   string      `json:"native_sha256"`
	ArtifactHash string      `json:"artifact_sha256"`
	Refused      *wray.Error `json:"refused,omitempty"` // the module is not to be compiled again
	MAC          string      `json:"mac"`               // of all the above
}

const defaultMaxBytes = 4 << 30

// Open opens the cache, and makes it when it is not there.
func Open(cfg Config) (*Cache, error) {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	if err := privateDir(cfg.Root); err != nil {
		return nil, err
	}
	key, err := loadKey(filepath.Join(cfg.Root, "key"))
	if err != nil {
		return nil, err
	}
	return &Cache{cfg: cfg, key: key, flights: map[string]*flight{}}, nil
}

// Close closes the cache. It waits for compilations under way.
func (c *Cache) Close() error {
	c.mu.Lock()
	flights := make([]*flight, 0, len(c.flights))
	for _, f := range c.flights {
		flights = append(flights, f)
	}
	c.mu.Unlock()
	for _, f := range flights {
		<-f.done
	}
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
	if st.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("the code cache %s is open to others: %w", dir, err)
		}
	}
	return checkOwner(dir, st)
}

// loadKey reads the key, and draws one when there is none. Two processes that
// do so at once agree on one.
func loadKey(path string) ([]byte, error) {
	for {
		key, err := os.ReadFile(path)
		if err == nil {
			if len(key) != sha256.Size {
				return nil, fmt.Errorf("the code cache's key %s is damaged: remove it and the directory code beside it", path)
			}
			return key, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read the code cache's key: %w", err)
		}
		key = make([]byte, sha256.Size)
		if _, err := rand.Read(key); err != nil {
			return nil, err
		}
		tmp, err := os.CreateTemp(filepath.Dir(path), "key-*")
		if err != nil {
			return nil, err
		}
		_, werr := tmp.Write(key)
		if err := errors.Join(werr, tmp.Close()); err != nil {
			os.Remove(tmp.Name())
			return nil, err
		}
		err = os.Link(tmp.Name(), path) // fails where another was first
		os.Remove(tmp.Name())
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("keep the code cache's key: %w", err)
		}
	}
}

var tenantName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Dir returns the engine's cache directory of a tenant, which exists. A worker
// of the tenant may read it and nothing else.
func (c *Cache) Dir(tenant string) (string, error) {
	if !tenantName.MatchString(tenant) {
		return "", fmt.Errorf("%q is no name for a tenant", tenant)
	}
	dir := filepath.Join(c.cfg.Root, "code", tenant)
	for _, d := range []string{filepath.Join(c.cfg.Root, "code"), dir} {
		if err := privateDir(d); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// Get returns the compiled form of a module, and compiles it when there is
// none that is whole. A module that was refused is refused again, at once.
func (c *Cache) Get(ctx context.Context, tenant string, module []byte) (Entry, error) {
	sum := sha256.Sum256(module)
	id := sha256.New()
	id.Write(sum[:])
	io.WriteString(id, c.cfg.Identity)
	name := hex.EncodeToString(id.Sum(nil)[:20])
	key := tenant + "/" + name
	c.mu.Lock()
	if f := c.flights[key]; f != nil {
		c.mu.Unlock()
		select {
		case <-f.done:
			return f.entry, f.err
		case <-ctx.Done():
			return Entry{}, ctx.Err()
		}
	}
	f := &flight{done: make(chan struct{})}
	c.flights[key] = f
	c.mu.Unlock()
	f.entry, f.err = c.get(ctx, tenant, name, hex.EncodeToString(sum[:]), module)
	c.mu.Lock()
	delete(c.flights, key)
	c.mu.Unlock()
	close(f.done)
	return f.entry, f.err
}

func (c *Cache) get(ctx context.Context, tenant, name, sum string, module []byte) (Entry, error) {
	dir, err := c.Dir(tenant)
	if err != nil {
		return Entry{}, err
	}
	unlock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return Entry{}, err
	}
	defer unlock()
	e, err := c.lookup(dir, name, sum)
	var refused *wray.Error
	if err == nil || errors.As(err, &refused) {
		return e, err
	}
	// Not there, or not whole: an entry that was touched is made anew.
	return c.compile(ctx, dir, name, sum, module)
}

var errMissing = errors.New("not in the code cache")

// lookup finds and checks an entry. A *wray.Error is why the module was
// refused earlier.
func (c *Cache) lookup(dir, name, sum string) (Entry, error) {
	b, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		return Entry{}, errMissing
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return Entry{}, errMissing
	}
	want := m.MAC
	if !hmac.Equal([]byte(want), []byte(c.mac(m))) || m.Module != sum || m.Identity != c.cfg.Identity {
		return Entry{}, errMissing
	}
	if m.Refused != nil {
		return Entry{}, m.Refused
	}
	e := Entry{CacheDir: dir, NativePath: filepath.Join(dir, m.Native), ArtifactPath: filepath.Join(dir, name+".artifact")}
	for path, want := range map[string]string{e.NativePath: m.NativeHash, e.ArtifactPath: m.ArtifactHash} {
		if got, err := hashFile(path); err != nil || got != want {
			return Entry{}, errMissing
		}
	}
	touch(e.ArtifactPath)
	return e, nil
}

// mac authenticates a manifest, its MAC field apart.
func (c *Cache) mac(m manifest) string {
	m.MAC = ""
	b, err := json.Marshal(m)
	if err != nil {
		panic("BUG: codecache: " + err.Error())
	}
	h := hmac.New(sha256.New, c.key)
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil))
}

func (c *Cache) writeManifest(dir, name string, m manifest) error {
	m.MAC = c.mac(m)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, name+".json.tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return os.Rename(tmp, filepath.Join(dir, name+".json"))
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
