package codecache

import (
	"context"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// settled is how long an entry is left alone after its last use: a worker that
// was pointed to it has loaded it by then. Files that belong to nobody, since a
// process ended between two steps, are left alone as long.
const settled = 10 * time.Minute

// longest is more than any compilation may take.
const longest = 24 * time.Hour

// trim removes the entries of a tenant that were used longest ago until the
// rest fits. A module whose code went is compiled again.
func (c *Cache) trim(dir string) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	// One process at a time; where another trims, this one need not.
	unlock, err := lockFile(ctx, filepath.Join(c.cfg.Root, "locks", "trim"))
	if err != nil {
		return
	}
	defer unlock()
	c.trimBefore(dir, time.Now().Add(-settled))
}

// kept is an entry on disk, or a refusal.
type kept struct {
	manifest string
	native   string // full path; empty for a refusal
	artifact string
	used     time.Time
	bytes    int64
}

// trimBefore removes what was last used before a time. What cannot be removed
// is counted again next time.
func (c *Cache) trimBefore(dir string, before time.Time) {
	entries, owner, total := c.inventory(dir)
	sort.Slice(entries, func(i, j int) bool { return entries[i].used.Before(entries[j].used) })
	for _, e := range entries {
		if total <= c.cfg.MaxBytes || !e.used.Before(before) {
			break
		}
		os.Remove(e.manifest) // first: the rest is then garbage, never half an entry
		os.Remove(e.artifact)
		delete(owner, e.manifest)
		delete(owner, e.artifact)
		if e.native != "" {
			if owner[e.native]--; owner[e.native] == 0 {
				os.Remove(e.native)
				delete(owner, e.native)
			}
		}
		total -= e.bytes
	}
	sweep(dir, owner, before)
}

// inventory lists entries, counts the owners of each file, and sums the bytes.
func (c *Cache) inventory(dir string) (entries []kept, owner map[string]int, total int64) {
	owner = map[string]int{}
	manifests, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*"+manifestExt))
	if err != nil {
		return nil, owner, 0
	}
	for _, path := range manifests {
		st, err := os.Stat(path)
		if err != nil {
			continue
		}
		e := kept{manifest: path, artifact: strings.TrimSuffix(path, manifestExt) + artifactExt, used: st.ModTime(), bytes: st.Size()}
		m, err := c.readManifest(path)
		if err != nil {
			continue // damaged: swept with all that it named
		}
		owner[path]++
		if m.Refused == nil {
			e.native = filepath.Join(dir, m.Native)
			owner[e.native]++
			owner[e.artifact]++
			e.bytes += size(e.artifact)
			if owner[e.native] == 1 {
				e.bytes += size(e.native)
			}
		}
		total += e.bytes
		entries = append(entries, e)
	}
	return entries, owner, total
}

func size(path string) int64 {
	if st, err := os.Stat(path); err == nil {
		return st.Size()
	}
	return 0
}

// sweep removes files and private directories that belong to no entry.
func sweep(dir string, owner map[string]int, before time.Time) {
	for _, pattern := range []string{"*" + manifestExt, "*" + artifactExt, "wazero-*/*", "manifest-*", "module-*", "compile-*"} {
		paths, err := filepath.Glob(filepath.Join(escapeGlob(dir), pattern))
		if err != nil {
			continue
		}
		before := before
		if pattern == "compile-*" {
			before = before.Add(-longest) // it may be in use
		}
		for _, path := range paths {
			st, err := os.Lstat(path)
			if err == nil && owner[path] == 0 && st.ModTime().Before(before) {
				os.RemoveAll(path)
			}
		}
	}
}

// escapeGlob makes a directory's name match itself.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}
