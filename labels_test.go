package wray

import (
	"reflect"
	"strings"
	"testing"
)

func TestSelector(t *testing.T) {
	labels := []Label{{"zone", "west"}, {"gpu", "h100"}}
	for text, want := range map[string]bool{
		"zone=west": true, "zone == west": true, "zone=east": false, "zone!=east": true, "zone != west": false,
		"gpu": true, "!gpu": false, "spot": false, "! spot": true, "spot!=yes": true, "spot=yes": false,
		"zone in (north, west)": true, "zone in (north)": false, "zone notin (north,south)": true, "zone notin (west)": false,
		"spot notin (yes)": true, "spot in (yes)": false, " zone=west ": true,
	} {
		s, err := ParseSelector(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := s.Matches(labels); got != want {
			t.Errorf("%q of %v: %v", text, labels, got)
		}
		if again, err := ParseSelector(s.String()); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%q is %q, which is %+v, %v", text, s, again, err)
		}
	}
	for _, text := range []string{"", "!", "=", "=west", "zone=", "zone west", "zonein (west)", "zone in west", "zone in ()", "zone in (a,,b)", "!zone=west",
		"zo ne=west", "zone=we st", "zone=a,b", "zone\x00=a", "zone in (" + strings.Repeat("a,", MaxAlternative) + "a)",
		strings.Repeat("z", MaxLabelPart+1), "zone=" + strings.Repeat("z", MaxLabelPart+1), strings.Repeat(" ", MaxSelector) + "zone"} {
		if s, err := ParseSelector(text); err == nil {
			t.Errorf("%.40q was read as %+v", text, s)
		}
	}
}

func TestPlacement(t *testing.T) {
	where := []Selector{{Key: "zone", Values: []string{"east", "west"}}, {Key: "spot", Not: true}}
	for _, p := range []Placement{{}, {Spread: true}, {Node: "a b"}, {Node: "a", Soft: true}, {Where: where}, {Spread: true, Where: where}, {Node: "a", Where: where}} {
		got, err := ParsePlacement(string(p.Append(nil)))
		if err != nil || !reflect.DeepEqual(*got, p) {
			t.Errorf("%+v travelled as %+v, %v", p, got, err)
		}
	}
	for _, text := range []string{"spread", "spread\x00", "spread\x00x\x00", "spread\x00\x00spread\x00\x00", "node\x00\x00", "node\x00a\x00node\x00b\x00",
		"node\x00a\x00prefer\x00b\x00", "spread\x00\x00node\x00a\x00", "where\x00\x00", "where\x00zone in west\x00", "group\x00a\x00",
		strings.Repeat("where\x00a\x00", MaxSelectors+1), "node\x00" + strings.Repeat("n", MaxNodeName+1) + "\x00"} {
		if p, err := ParsePlacement(text); err == nil {
			t.Errorf("%.60q was read as %+v", text, p)
		}
	}
	hard := Placement{Node: "a", Where: where}
	for _, c := range []struct {
		p      Placement
		node   string
		labels []Label
		want   bool
	}{
		{hard, "a", []Label{{"zone", "west"}}, true},
		{hard, "b", []Label{{"zone", "west"}}, false},
		{hard, "a", []Label{{"zone", "west"}, {"spot", "yes"}}, false},
		{hard, "a", nil, false},
		{Placement{Node: "a", Soft: true}, "b", nil, true},
		{Placement{Spread: true}, "b", nil, true},
		{Placement{}, "b", nil, true},
	} {
		if why, ok := c.p.Allows(c.node, c.labels); ok != c.want || ok != (why == "") {
			t.Errorf("%+v on %s with %v: %v, %q", c.p, c.node, c.labels, ok, why)
		}
	}
}

// FuzzPlacement holds that what a stranger writes is refused, or within the
// bounds and the same when it travels on.
func FuzzPlacement(f *testing.F) {
	for _, text := range []string{"", "spread\x00\x00", "node\x00a\x00", "prefer\x00a\x00where\x00zone=west\x00where\x00!spot\x00",
		"where\x00zone in (a, b)\x00", "where\x00zone notin(a)\x00", "node\x00a"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePlacement(text)
		if err != nil {
			return
		}
		b := p.Append(nil)
		again, err := ParsePlacement(string(b))
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%q is %+v, and %q is %+v, %v", text, p, b, again, err)
		}
		for i := range p.Where {
			if s := &p.Where[i]; s.Matches(nil) != s.Not {
				t.Errorf("%v of a node without labels", s)
			}
		}
	})
}
