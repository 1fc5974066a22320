// Command vulndb makes a database for govulncheck -db file:// of the reports in
// module golang.org/x/vulndb, which the proxy of Go modules serves: it needs no
// other network.
//
//	vulndb REPORTS OUT
//
// REPORTS is the directory data/osv of that module. The layout of OUT is that of
// go.dev/doc/security/vuln/database.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// report is what the indexes need of a report in the format OSV.
type report struct {
	ID       string    `json:"id"`
	Modified time.Time `json:"modified"`
	Aliases  []string  `json:"aliases"`
	Affected []struct {
		Package struct {
			Name string `json:"name"`
		} `json:"package"`
		Ranges []struct {
			Events []struct {
				Fixed string `json:"fixed"`
			} `json:"events"`
		} `json:"ranges"`
	} `json:"affected"`
}

// The indexes.
type (
	dbIndex struct {
		Modified time.Time `json:"modified"`
	}
	moduleVuln struct {
		ID       string    `json:"id"`
		Modified time.Time `json:"modified"`
		Fixed    string    `json:"fixed,omitempty"`
	}
	moduleIndex struct {
		Path  string       `json:"path"`
		Vulns []moduleVuln `json:"vulns"`
	}
	vulnIndex struct {
		ID       string    `json:"id"`
		Modified time.Time `json:"modified"`
		Aliases  []string  `json:"aliases,omitempty"`
	}
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: vulndb REPORTS OUT")
		os.Exit(2)
	}
	n, err := build(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vulndb:", err)
		os.Exit(1)
	}
	fmt.Printf("%d reports\n", n)
}

// build writes the database and returns how many reports it has.
func build(reports, out string) (n int, err error) {
	files, err := filepath.Glob(filepath.Join(reports, "GO-*.json"))
	if err != nil || len(files) == 0 {
		return 0, errors.Join(err, fmt.Errorf("%s has no reports", reports))
	}
	for _, dir := range []string{"ID", "index"} {
		if err := os.MkdirAll(filepath.Join(out, dir), 0o755); err != nil {
			return 0, err
		}
	}
	var newest time.Time // zero where reports do not say: the module has a date
	modules := map[string]*moduleIndex{}
	var vulns []vulnIndex
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		var r report
		if err := json.Unmarshal(b, &r); err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		if r.Modified.After(newest) {
			newest = r.Modified
		}
		vulns = append(vulns, vulnIndex{r.ID, r.Modified, r.Aliases})
		for _, a := range r.Affected {
			m := modules[a.Package.Name]
			if m == nil {
				m = &moduleIndex{Path: a.Package.Name}
				modules[m.Path] = m
			}
			fixed := ""
			for _, g := range a.Ranges {
				for _, e := range g.Events {
					fixed = max(fixed, e.Fixed) // a hint for people: the report has the truth
				}
			}
			if !slices.ContainsFunc(m.Vulns, func(v moduleVuln) bool { return v.ID == r.ID }) {
				m.Vulns = append(m.Vulns, moduleVuln{r.ID, r.Modified, fixed})
			}
		}
		if err := os.WriteFile(filepath.Join(out, "ID", r.ID+".json"), b, 0o644); err != nil {
			return 0, err
		}
	}
	list := make([]*moduleIndex, 0, len(modules))
	for _, m := range modules {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *moduleIndex) int { return strings.Compare(a.Path, b.Path) })
	for name, v := range map[string]any{"db": dbIndex{newest}, "modules": list, "vulns": vulns} {
		b, err := json.Marshal(v)
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(filepath.Join(out, "index", name+".json"), b, 0o644); err != nil {
			return 0, err
		}
	}
	return len(files), nil
}
