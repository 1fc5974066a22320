package codecache

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// touch notes that an entry was used, for trim.
func touch(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now) // without it the entry is trimmed sooner
}

// trim removes the entries that were used longest ago until the rest fits, but
// never the one named keep. A module whose code went is compiled again.
func (c *Cache) trim(dir, keep string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.artifact"))
	if err != nil {
		return
	}
	type entry struct {
		name  string
		used  time.Time
		bytes int64
		paths []string
	}
	var entries []entry
	var total int64
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".artifact")
		e := entry{name: name, paths: []string{f, filepath.Join(dir, name+".json")}}
		var m manifest
		if b, err := os.ReadFile(e.paths[1]); err == nil && json.Unmarshal(b, &m) == nil && nativeName.MatchString(m.Native) {
			e.paths = append(e.paths, filepath.Join(dir, m.Native))
		}
		for i, p := range e.paths {
			if st, err := os.Stat(p); err == nil {
				e.bytes += st.Size()
				if i == 0 {
					e.used = st.ModTime()
				}
			}
		}
		total += e.bytes
		entries = append(entries, e)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].used.Before(entries[j].used) })
	for _, e := range entries {
		if total <= c.cfg.MaxBytes {
			return
		}
		if e.name == keep {
			continue
		}
		for _, p := range e.paths {
			_ = os.Remove(p) // what stays is counted again next time
		}
		total -= e.bytes
	}
}
