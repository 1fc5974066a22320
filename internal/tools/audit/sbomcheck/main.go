// Command sbomcheck holds that a list of components in the format CycloneDX names
// the modules that a program was built from, and no others, each with its version.
//
//	sbomcheck SBOM PROGRAM
package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sbomcheck SBOM PROGRAM")
		os.Exit(2)
	}
	n, err := check(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "sbomcheck:", err)
		os.Exit(1)
	}
	fmt.Printf("the %d modules of %s are in %s, and no others\n", n, os.Args[2], os.Args[1])
}

func check(list, program string) (int, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return 0, err
	}
	built := map[string]bool{}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		built[m.Path+"@"+m.Version] = true
	}
	b, err := os.ReadFile(list)
	if err != nil {
		return 0, err
	}
	var bom struct {
		Components []struct{ Name, Version, Type string }
	}
	if err := json.Unmarshal(b, &bom); err != nil {
		return 0, fmt.Errorf("%s: %w", list, err)
	}
	var wrong []string
	listed := map[string]bool{}
	for _, c := range bom.Components {
		name := c.Name + "@" + c.Version
		if c.Name == "std" { // which the program names as the version of Go
			continue
		}
		listed[name] = true
		if !built[name] {
			wrong = append(wrong, name+" is not in the program")
		}
	}
	for name := range built {
		if !listed[name] {
			wrong = append(wrong, name+" is not in the list")
		}
	}
	if len(wrong) > 0 {
		return 0, fmt.Errorf("%s", strings.Join(wrong, "\n"))
	}
	if len(built) == 0 {
		return 0, fmt.Errorf("%s names no modules", program)
	}
	return len(built), nil
}
