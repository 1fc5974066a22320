package worker

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/wray-project/wray"
)

func TestParseCustom(t *testing.T) {
	list, err := parseCustom("gpu\x000.5\x00a name\x002\x00")
	want := []wray.Custom{{Name: "gpu", Amount: wray.OneUnit / 2}, {Name: "a name", Amount: 2 * wray.OneUnit}}
	if err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("%v, %v; want %v", list, err, want)
	}
	for _, s := range []string{"gpu", "gpu\x00", "gpu\x001", "\x001\x00", "gpu\x00\x00", "gpu\x001\x00gpu\x001\x00", "g\npu\x001\x00",
		"gpu\x00-1\x00", "gpu\x000.00001\x00", strings.Repeat("n", 129) + "\x001\x00", "gpu\x001\x00\x00", many(17)} {
		if list, err := parseCustom(s); err == nil {
			t.Errorf("parseCustom(%.30q) = %v, want an error", s, list)
		}
	}
	if list, err := parseCustom(many(16)); err != nil || len(list) != 16 {
		t.Errorf("16 resources: %v, %v", list, err)
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "r%d\x001\x00", i)
	}
	return b.String()
}

// FuzzParseCustom holds that what is read is within the bounds that the
// scheduler takes for granted, and that it is read again the same.
func FuzzParseCustom(f *testing.F) {
	f.Add("gpu\x000.5\x00a name\x002\x00")
	f.Add(many(17))
	f.Add("gpu\x001000000000.0000\x00")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := parseCustom(s)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		var again strings.Builder
		for _, c := range list {
			if seen[c.Name] || c.Amount < 0 || c.Amount > wray.MaxAmount || wray.CheckCustom(c.Name) != nil {
				t.Fatalf("%q gave %+v", s, list)
			}
			seen[c.Name] = true
			fmt.Fprintf(&again, "%s\x00%v\x00", c.Name, c.Amount)
		}
		if l, err := parseCustom(again.String()); len(list) > wray.MaxCustom || err != nil || !reflect.DeepEqual(l, list) {
			t.Fatalf("%q gave %+v, and that %+v, %v", s, list, l, err)
		}
	})
}
