package spec

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero/api"
)

// value is an argument or an expected result. Numbers are decimal strings of
// their bits; floats may be the patterns nan:canonical and nan:arithmetic; a
// v128 is a list of lanes; a reference without a value is any reference.
type value struct {
	Type string `json:"type"`
	Lane string `json:"lane_type"`
	text []string
	any  bool
}

// UnmarshalJSON reads the value, which is a string or a list of strings.
func (v *value) UnmarshalJSON(b []byte) error {
	var raw struct {
		Type  string          `json:"type"`
		Lane  string          `json:"lane_type"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	v.Type, v.Lane = raw.Type, raw.Lane
	if len(raw.Value) == 0 || string(raw.Value) == "null" {
		v.any = true
		return nil
	}
	if raw.Value[0] == '[' {
		return json.Unmarshal(raw.Value, &v.text)
	}
	v.text = make([]string, 1)
	return json.Unmarshal(raw.Value, &v.text[0])
}

// width returns the bits of one lane, or of the whole of what is no vector.
func (v *value) width() int {
	t := v.Type
	if t == "v128" {
		t = v.Lane
	}
	switch t {
	case "i8":
		return 8
	case "i16":
		return 16
	case "i32", "f32":
		return 32
	}
	return 64
}

// slots returns how many words of the engine's stack the value takes.
func (v *value) slots() int {
	if v.Type == "v128" {
		return 2
	}
	return 1
}

// number parses the bits of one lane.
func (v *value) number(s string) (uint64, error) {
	if v.Type == "externref" || v.Type == "funcref" {
		if s == "null" {
			return 0, nil
		}
		// The engine has 0 for null, so the n-th reference is n+1.
		n, err := strconv.ParseUint(s, 10, 32)
		return n + 1, err
	}
	if strings.HasPrefix(s, "-") {
		n, err := strconv.ParseInt(s, 10, v.width())
		return uint64(n) << (64 - v.width()) >> (64 - v.width()), err
	}
	return strconv.ParseUint(s, 10, v.width())
}

// args lays arguments out for a call.
func args(vs []value) ([]uint64, error) {
	var out []uint64
	for i := range vs {
		v := &vs[i]
		words := make([]uint64, v.slots())
		for n, s := range v.text {
			bits, err := v.number(s)
			if err != nil {
				return nil, err
			}
			at := n * v.width()
			words[at/64] |= bits << (at % 64)
		}
		out = append(out, words...)
	}
	return out, nil
}

// match compares results with what is expected, lane by lane.
func match(got []uint64, types []api.ValueType, want []value) error {
	if len(types) != len(want) {
		return fmt.Errorf("got %d results, want %d", len(types), len(want))
	}
	for i := range want {
		v := &want[i]
		if t := typeNames[types[i]]; t != v.Type {
			return fmt.Errorf("result %d is of type %s, want %s", i, t, v.Type)
		}
		words := got[:v.slots()]
		got = got[v.slots():]
		for n, s := range v.text {
			at := n * v.width()
			bits := words[at/64] >> (at % 64) << (64 - v.width()) >> (64 - v.width())
			if v.Type == "i32" || v.Type == "f32" {
				bits = uint64(uint32(words[0]))
			}
			if ok, err := v.matches(bits, s); err != nil || !ok {
				return fmt.Errorf("result %d lane %d: got %#x, want %s %s (%v)", i, n, bits, v.Type, s, err)
			}
		}
	}
	return nil
}

// matches compares the bits of one lane with a number or a pattern. A
// canonical NaN has only the highest bit of its payload set, an arithmetic one
// that and any others; signs are free.
func (v *value) matches(bits uint64, s string) (bool, error) {
	payload := 52
	if v.width() == 32 {
		payload = 23
	}
	abs := bits &^ (1 << (v.width() - 1))
	quiet := uint64(1)<<(v.width()-1) - 1<<(payload-1) // exponent and highest bit
	switch s {
	case "nan:canonical":
		return abs == quiet, nil
	case "nan:arithmetic":
		return abs&quiet == quiet, nil
	}
	want, err := v.number(s)
	return bits == want, err
}

var typeNames = map[api.ValueType]string{
	api.ValueTypeI32: "i32", api.ValueTypeI64: "i64", api.ValueTypeF32: "f32", api.ValueTypeF64: "f64",
	0x7b: "v128", 0x70: "funcref", api.ValueTypeExternref: "externref",
}
