package codecache

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"time"

	"golang.org/x/sys/cpu"

	"github.com/wray-project/wray"
)

// unit is a module in the cache of a tenant.
type unit struct {
	tenant, dir string
	module      [sha256.Size]byte
	id          string // of module and identity; it names the unit's files
}

func (c *Cache) unit(tenant, dir string, module []byte) unit {
	u := unit{tenant: tenant, dir: dir, module: sha256.Sum256(module)}
	h := sha256.New()
	h.Write(u.module[:]) // of fixed length, so nothing can be moved across the seam
	io.WriteString(h, c.identity)
	u.id = hex.EncodeToString(h.Sum(nil)[:20])
	return u
}

func (u unit) manifest() string { return filepath.Join(u.dir, u.id+manifestExt) }
func (u unit) artifact() string { return filepath.Join(u.dir, u.id+artifactExt) }

const (
	manifestExt = ".json"
	artifactExt = ".artifact"
)

// manifest is what is known of a unit. Its file is a MAC, a newline, and this as
// JSON. The MAC covers all of it, so that no part of an entry can be exchanged
// for another unit's or tenant's.
type manifest struct {
	Tenant       string      `json:"tenant"`
	Module       string      `json:"module"` // SHA-256
	Identity     string      `json:"identity"`
	Native       string      `json:"native,omitempty"` // path below the engine's cache directory
	NativeHash   string      `json:"native_sha256,omitempty"`
	ArtifactHash string      `json:"artifact_sha256,omitempty"`
	Refused      *wray.Error `json:"refused,omitempty"` // the module is not to be compiled again
	Program      string      `json:"program,omitempty"` // which build refused it; others may accept it
}

func (c *Cache) manifestOf(u unit) manifest {
	return manifest{Tenant: u.tenant, Module: hex.EncodeToString(u.module[:]), Identity: c.identity}
}

// nativeName is where the engine may have left native code.
var nativeName = regexp.MustCompile(`^wazero-[A-Za-z0-9._-]+/[0-9a-f]{64}$`)

// errMissing means that there is no entry, or none that is whole.
var errMissing = errors.New("not in the code cache")

// lookup finds and checks an entry. A *wray.Error is why the module was
// refused earlier; errMissing, that it is to be compiled.
func (c *Cache) lookup(u unit) (Entry, error) {
	m, err := c.readManifest(u.manifest())
	if err != nil {
		return Entry{}, errMissing
	}
	if want := c.manifestOf(u); m.Tenant != want.Tenant || m.Module != want.Module || m.Identity != want.Identity {
		return Entry{}, errMissing
	}
	if m.Refused != nil {
		if m.Program != c.program {
			return Entry{}, errMissing
		}
		return Entry{}, m.Refused
	}
	if !nativeName.MatchString(filepath.ToSlash(m.Native)) {
		return Entry{}, errMissing
	}
	e := Entry{CacheDir: u.dir, NativePath: filepath.Join(u.dir, m.Native), ArtifactPath: u.artifact(), Module: u.module}
	// Side by side: it is what a warm start waits for.
	native := make(chan bool, 1)
	go func() { native <- hashes(e.NativePath, m.NativeHash) }()
	artifact := hashes(e.ArtifactPath, m.ArtifactHash)
	if whole := <-native; !whole || !artifact {
		return Entry{}, errMissing
	}
	now := time.Now()
	_ = os.Chtimes(u.manifest(), now, now) // else the entry is trimmed sooner
	return e, nil
}

// maxManifest bounds what is read of a manifest, which a trace can make long.
const maxManifest = 1 << 20

// readManifest returns a manifest whose MAC is right.
func (c *Cache) readManifest(path string) (manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return manifest{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return manifest{}, err
	}
	mac, text, _ := bytes.Cut(b, []byte("\n"))
	if !hmac.Equal(mac, []byte(c.mac(text))) {
		return manifest{}, fmt.Errorf("%s is not this cache's", path)
	}
	var m manifest
	return m, json.Unmarshal(text, &m)
}

// mac authenticates the text of a manifest.
func (c *Cache) mac(text []byte) string {
	h := hmac.New(sha256.New, c.key)
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil))
}

func (c *Cache) writeManifest(u unit, m manifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	tmp, err := os.CreateTemp(u.dir, "manifest-")
	if err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	_, err = tmp.WriteString(c.mac(b) + "\n" + string(b))
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), u.manifest())
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("write the manifest: %w", err)
	}
	return nil
}

// hashes reports whether a file has a SHA-256.
func hashes(path, want string) bool {
	got, err := hashFile(path)
	return err == nil && got == want
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

// processor names what compiled code may use of the processor, coarser than it
// is and finer than the engine asks: the directory may be shared by machines.
func processor() string {
	on := func(bits ...bool) (s string) {
		for _, b := range bits {
			if b {
				s += "1"
			} else {
				s += "0"
			}
		}
		return s
	}
	x, a := cpu.X86, cpu.ARM64
	return runtime.GOOS + "/" + runtime.GOARCH + "/" +
		on(x.HasSSE3, x.HasSSSE3, x.HasSSE41, x.HasSSE42, x.HasPOPCNT, x.HasBMI1, x.HasBMI2, x.HasAVX, x.HasAVX2, x.HasFMA) +
		on(a.HasATOMICS, a.HasFP, a.HasASIMD)
}

// program tells builds of this program apart. A module that one build refuses
// another may take: only refusals depend on it.
func program() string {
	exe, err := os.Executable()
	if err == nil {
		if st, err := os.Stat(exe); err == nil {
			return fmt.Sprintf("%d %d", st.Size(), st.ModTime().UnixNano())
		}
	}
	return "unknown"
}
