package wray_test

import (
	"strings"
	"testing"

	"github.com/wray-project/wray"
)

func TestParseAmount(t *testing.T) {
	for s, want := range map[string]wray.Amount{
		"0": 0, "1": wray.OneUnit, "0.5": wray.OneUnit / 2, "0.0001": 1, "12.3400": 123_400, "007": 7 * wray.OneUnit,
		"1000000000": wray.MaxAmount, "1000000000.0000": wray.MaxAmount,
	} {
		if got, err := wray.ParseAmount(s); err != nil || got != want {
			t.Errorf("ParseAmount(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", ".", ".5", "1.", "-1", "+1", "1e3", " 1", "0.00001", "1,5", "1000000000.0001",
		"1000000001", strings.Repeat("9", 10_000), "NaN", "0x1", "1.2.3"} {
		if got, err := wray.ParseAmount(s); err == nil {
			t.Errorf("ParseAmount(%.20q) = %v, want an error", s, got)
		}
	}
}

func TestSetCustom(t *testing.T) {
	list, err := wray.SetCustom(nil, wray.Custom{Name: "licence", Amount: 1})
	if err != nil {
		t.Fatal(err)
	}
	again, err := wray.SetCustom(list, wray.Custom{Name: "licence", Amount: 2})
	if err != nil || len(again) != 1 || again[0].Amount != 2 || list[0].Amount != 1 {
		t.Errorf("the second of a name gave %v, %v; the list before is %v", again, err, list)
	}
	for _, c := range []wray.Custom{{"", 1}, {"a\x00b", 1}, {"ä", 1}, {strings.Repeat("n", 129), 1}, {"a", -1}, {"a", wray.MaxAmount + 1}} {
		if _, err := wray.SetCustom(nil, c); err == nil {
			t.Errorf("SetCustom took %.20q, %d", c.Name, c.Amount)
		}
	}
}
