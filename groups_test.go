package wray

import (
	"reflect"
	"strings"
	"testing"
)

func TestGroupText(t *testing.T) {
	g := &GroupSpec{Strategy: GroupStrictSpread, Bundles: []Bundle{
		{Resources: Resources{CPU: CPUs(1.5), Memory: 1 << 30}, Custom: []Custom{{"gpu", OneUnit / 2}, {"a b", OneUnit}}},
		{Resources: Resources{CPU: OneCPU}, Where: []Selector{{Key: "zone", Values: []string{"east", "west"}}, {Key: "spot", Not: true}}},
	}}
	back, err := ParseGroup(string(g.Append(nil)))
	if err != nil || !reflect.DeepEqual(g, back) {
		t.Errorf("the group %+v was read as %+v, %v", g, back, err)
	}
	if s := g.Bundles[0].String(); s != "1.5 CPU, 1 GiB of memory, 0.5 gpu, 1 a b" {
		t.Errorf("a bundle is %q", s)
	}
	for _, bad := range []struct{ text, why string }{
		{"", "0 bundles"},
		{"strategy\x00pack\x00", "0 bundles"},
		{"strategy\x00heap\x00bundle\x00\x00cpu\x001\x00", "not known"},
		{"cpu\x001\x00", "no bundle"},
		{"bundle\x00\x00", "sets nothing aside"},
		{"bundle\x00\x00cpu\x00-1\x00", "decimal"},
		{"bundle\x00\x00cpu\x001\x00cpu\x001\x00", "too often"},
		{"bundle\x00\x00resource\x001 x\x00resource\x002 x\x00", "twice"},
		{"bundle\x00\x00resource\x001\x00", "name has 0 bytes"},
		{"bundle\x00\x00resource\x000 x\x00", "not positive"},
		{"bundle\x00\x00memory\x00-5\x00", "negative"},
		{"bundle\x00\x00cpu\x001", "missing"},
		{strings.Repeat("bundle\x00\x00cpu\x001\x00", MaxBundles+1), "not known"},
	} {
		if _, err := ParseGroup(bad.text); err == nil || !strings.Contains(err.Error(), bad.why) {
			t.Errorf("the group %.60q: %v, want an error that says %q", bad.text, err, bad.why)
		}
	}
}

// FuzzParseGroup holds that what is read is written and read as the same.
func FuzzParseGroup(f *testing.F) {
	f.Add("strategy\x00spread\x00bundle\x00\x00cpu\x001.5\x00resource\x002 gpu\x00where\x00zone in (a,b)\x00")
	f.Add("bundle\x00\x00memory\x001024\x00")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := ParseGroup(text)
		if err != nil {
			return
		}
		back, err := ParseGroup(string(g.Append(nil)))
		if err != nil || !reflect.DeepEqual(g, back) {
			t.Errorf("%q was read as %+v, and that as %+v, %v", text, g, back, err)
		}
	})
}
