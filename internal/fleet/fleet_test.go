package fleet

import (
	"slices"
	"strings"
	"testing"
)

const file = `
hosts:
  - {ssh: two, name: two, address: "192.0.2.2:7420", cpus: 0.5, resources: {gpu: 2, b: "0.5"}, labels: {zone: a}, flags: [--drain, 60s]}
  - {ssh: me@one, name: one, address: "192.0.2.1:7420", head: true}
`

func TestFlags(t *testing.T) {
	f, err := Read(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	hosts := f.Order()
	if hosts[0].Name != "one" || hosts[1].Name != "two" {
		t.Errorf("order: %+v", hosts)
	}
	for i, want := range []string{
		"--name one --listen 192.0.2.1:7420 --head",
		"--name two --listen 192.0.2.2:7420 --address 192.0.2.1:7420 --cpus 0.5 --resource b=0.5 --resource gpu=2 --labels zone=a --drain 60s",
	} {
		if got := f.Flags(hosts[i]); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	for says, swap := range map[string][2]string{
		"field cores not found":     {"cpus: 0.5", "cores: 1"},
		"ssh says not where":        {"ssh: two", "ssh: -oProxyCommand=x"},
		"want IP:PORT":              {"192.0.2.2:7420", "192.0.2.2"},
		"that of host 1 too":        {"name: one", "name: two"},
		"no host is a head":         {"head: true", "head: false"},
		"want a name of the node":   {"name: two", "name: $(x)"},
		"want a path of letters":    {"hosts:", "directory: a;b\nhosts:"},
		"cpus: -1":                  {"cpus: 0.5", "cpus: -1"},
		"address 192.0.2.1:7420 is": {"192.0.2.2:7420", "192.0.2.1:7420"},
	} {
		if _, err := Read(strings.NewReader(strings.Replace(file, swap[0], swap[1], 1))); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	if _, err := Read(strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "no hosts") {
		t.Errorf("an empty file: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(file)
	f.Fuzz(func(t *testing.T, s string) {
		fleet, err := Read(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, h := range fleet.Order() {
			if flags := fleet.Flags(h); !slices.Contains(flags, h.Name) {
				t.Errorf("%v", flags)
			}
		}
	})
}
