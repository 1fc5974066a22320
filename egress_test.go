package wray

import (
	"slices"
	"strings"
	"testing"
)

// TestEgressRules holds what each rule lets be asked, and what another covers of it.
func TestEgressRules(t *testing.T) {
	for text, want := range map[string]struct{ yes, no []string }{
		"api.example.com":        {[]string{"api.example.com 443", "api.example.com 80"}, []string{"api.example.com 8443", "x.api.example.com 443", "example.com 443", "evilapi.example.com 443"}},
		"API.Example.com:8443":   {[]string{"api.example.com 8443"}, []string{"api.example.com 443"}},
		"*.example.com":          {[]string{"a.example.com 443", "b.a.example.com 80"}, []string{"example.com 443", "evilexample.com 443", "a.example.com.evil.net 443", "10.0.0.1 443"}},
		"*.example.com:*":        {[]string{"a.example.com 22"}, []string{"example.com 22"}},
		"*":                      {[]string{"a 443", "10.0.0.1 80"}, []string{"a 22"}},
		"*:*":                    {[]string{"a 22", "::1 1"}, []string{"a 0"}},
		"127.0.0.1:8080":         {[]string{"127.0.0.1 8080"}, []string{"127.0.0.1 80", "127.0.0.2 8080"}},
		"[2001:db8::1]:443":      {[]string{"2001:db8::1 443"}, []string{"2001:db8::2 443"}},
		"[2001:db8::1]":          {[]string{"2001:db8::1 443", "2001:db8::1 80"}, nil},
		"xn--bcher-kva.example":  {[]string{"xn--bcher-kva.example 443"}, []string{"bucher.example 443"}},
		"a-b.0x.example.1a:8080": {[]string{"a-b.0x.example.1a 8080"}, nil},
	} {
		r, err := ParseEgress(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if again, err := ParseEgress(r.String()); err != nil || again != r {
			t.Errorf("%s is written %s, which is read as %v, %v", text, r, again, err)
		}
		ask := func(at string) bool {
			host, port, _ := strings.Cut(at, " ")
			n := 0
			for _, c := range port {
				n = 10*n + int(c-'0')
			}
			return r.Allows(host, n)
		}
		for _, at := range want.yes {
			if !ask(at) {
				t.Errorf("%s does not allow %s", text, at)
			}
		}
		for _, at := range want.no {
			if ask(at) {
				t.Errorf("%s allows %s", text, at)
			}
		}
	}
	covers := map[string][]string{
		"*:*": {"*", "a.b", "*.b:22", "10.0.0.1:5"}, "*": {"*", "a.b", "*.b", "*.a.b", "b", "xb", "a.b:80", "a.b:443"}, "*.b": {"a.b", "*.b", "*.a.b", "a.b:80", "a.b:443"}, "a.b": {"a.b", "a.b:80", "a.b:443"}, "a.b:80": {"a.b:80"},
	}
	all := []string{"*:*", "*", "*.b", "*.a.b", "*.b:22", "a.b", "a.b:80", "a.b:443", "a.b:*", "10.0.0.1:5", "b", "xb"}
	for outer, inner := range covers {
		o, _ := ParseEgress(outer)
		for _, text := range all {
			r, err := ParseEgress(text)
			if err != nil {
				t.Fatal(err)
			}
			if got := o.Covers(r); outer != "*:*" && got != slices.Contains(inner, text) || outer == "*:*" && !got {
				t.Errorf("%s covers %s: %v", outer, text, got)
			}
		}
	}
}

// notHosts are texts that some software takes for a host, or an address, and that
// are none here.
var notHosts = []string{
	"", " ", ".", "a.", "127.0.0.1.", ".a", "a..b", "-a", "a-", "a_b", "a b", "a\tb", "a\x00b", "ä.example", "\uff11\uff12\uff17.0.0.1", "a\u3002b",
	"2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1", "127.0.0.01", "127.0.0.256", "1.2.3.4.5", "0x7F.0.0.0x1", "00.0.0.0", "127.0.0.0x1", "a.1", "a.0x1", "example.0x",
	"::ffff:127.0.0.1", "::FFFF:7f00:1", "0:0:0:0:0:0:0:1", "::0001", "fe80::1%eth0", "fe80::1%25eth0", "[::1]", "1::2::3", ":", "a:b", "2001:db8:0::1", "user@host", "a/b", "a?b", "a#b", "a%2eb", "a\\b",
	strings.Repeat("a", 64) + ".com", strings.Repeat("a.", 127) + "aa",
}

// TestCheckHost holds that a host has one spelling.
func TestCheckHost(t *testing.T) {
	for _, text := range notHosts {
		if h, err := CheckHost(text); err == nil {
			t.Errorf("%q is taken for the host %q", text, h)
		}
		if r, err := ParseEgress(text); err == nil && text != "[::1]" {
			t.Errorf("%q is taken for the rule %v", text, r)
		}
	}
	for text, want := range map[string]string{"A.b": "a.b", "::1": "::1", "127.0.0.1": "127.0.0.1", "1a.b2": "1a.b2", "2001:DB8::1": "2001:db8::1"} {
		if h, err := CheckHost(text); err != nil || h != want {
			t.Errorf("%q: %q, %v", text, h, err)
		}
	}
	for _, text := range []string{"a:", "a:0", "a:00080", "a:+80", "a:65536", "a:8o", "*.", "*.127.0.0.1", "**", "*a", "a.*.b", "[::1", "[::1]x", "[::1]:", "[a]", "::1:80", "http://a", "a:80:80"} {
		if r, err := ParseEgress(text); err == nil {
			t.Errorf("%q is taken for the rule %v", text, r)
		}
	}
}

// FuzzEgress holds that a rule that is read is written so that the same is read, and
// that it allows no more than one that covers it.
func FuzzEgress(f *testing.F) {
	for _, text := range notHosts {
		f.Add(text, "*.b:80")
	}
	f.Add("*.a.b:443", "*.b")
	f.Add("[::1]:80", "*:*")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, err := ParseEgress(a)
		if err != nil {
			return
		}
		if again, err := ParseEgress(x.String()); err != nil || again != x {
			t.Fatalf("%q is written %q and read as %v, %v", a, x, again, err)
		}
		y, err := ParseEgress(b)
		if err != nil {
			return
		}
		for _, host := range []string{"a.b", "b", "x.a.b", "127.0.0.1", "::1", strings.TrimPrefix(x.host, "*.")} {
			if h, err := CheckHost(host); err != nil || h != host {
				continue
			}
			for _, port := range []int{80, 443, 22} {
				if y.Covers(x) && x.Allows(host, port) && !y.Allows(host, port) {
					t.Fatalf("%v covers %v, which allows %s at %d alone", y, x, host, port)
				}
			}
		}
	})
}

// TestGrantsText holds that grants are read as they were written, and that what is
// not known is no grant that is left out.
func TestGrantsText(t *testing.T) {
	for _, texts := range [][]string{nil, {"dir=/a"}, {"dir=/a:ro", "egress=a.b:80", "egress=*.c"}} {
		var g Grants
		for _, text := range texts {
			if err := g.ParseGrant(text); err != nil {
				t.Fatal(err)
			}
		}
		b := g.Append(nil)
		got, err := ParseGrants(string(b))
		if err != nil || string(got.Append(nil)) != string(b) || len(got.Dirs) != len(g.Dirs) || len(got.Egress) != len(g.Egress) {
			t.Errorf("%q: %+v, %v", b, got, err)
		}
	}
	for _, text := range []string{"", "none", "dir=/a", "dir=a\x00", "gpu=1\x00", "egress=\x00", "none\x00none\x00", "\x00", strings.Repeat("egress=a\x00", MaxGrants+1)} {
		if g, err := ParseGrants(text); err == nil {
			t.Errorf("%q is read as %+v", text, g)
		}
	}
	g := Grants{Dirs: []DirGrant{{"/a", true}, {"/b/", false}}}
	for dir, want := range map[string][2]bool{"/a": {true, true}, "/a/": {true, true}, "/b": {true, false}, "/c": {false, false}, "/": {false, false}} {
		if ok, ro := g.Dir(dir); ok != want[0] || ro != want[1] {
			t.Errorf("%s: %v %v", dir, ok, ro)
		}
	}
}

// TestPolicy holds what a policy allows, and that some networks cannot be opened.
func TestPolicy(t *testing.T) {
	within := func(outer, dir string) bool { return dir == outer || strings.HasPrefix(dir, outer+"/") }
	p := Policy{Dirs: []string{"/data", "/src:ro"}, Egress: []string{"*.a"}}
	for dir, want := range map[string]bool{"/data": true, "/data/x": true, "/datax": false, "/src": false, "/": false} {
		if got := p.AllowsDir(dir, false, within); got != want {
			t.Errorf("%s: %v", dir, got)
		}
	}
	if !p.AllowsDir("/src/x", true, within) || p.AllowsDir("/etc", true, within) {
		t.Error("for reading alone")
	}
	if home := DefaultPolicy(true); !home.AllowsDir("/x", false, within) || !home.AllowsEgress(AnyEgress) || len(home.Private) > 0 {
		t.Errorf("%+v", home)
	}
	if other := DefaultPolicy(false); other.AllowsDir("/x", true, within) || len(other.Egress) > 0 {
		t.Errorf("%+v", other)
	}
	for _, n := range []string{"0.0.0.0/0", "::/0", "169.254.0.0/16", "169.254.169.254/32", "128.0.0.0/1", "fe80::/64", "224.0.0.1/32", "0.0.0.0/32", "10.0.0.1/8", "10.0.0.0", "x", "::ffff:10.0.0.0/104"} {
		if err := (&Policy{Private: []string{n}}).Check(); err == nil {
			t.Errorf("%s is opened", n)
		}
	}
	if err := (&Policy{Private: []string{"10.0.0.0/8", "127.0.0.0/8", "fd00::/8"}, Dirs: []string{"/a:ro", `C:\x`}, Egress: []string{"*:*"}}).Check(); err != nil {
		t.Error(err)
	}
	for _, bad := range []Policy{{Dirs: []string{"a"}}, {Egress: []string{"http://a"}}, {Dirs: make([]string, MaxPolicy+1)}} {
		if bad.Check() == nil {
			t.Errorf("%+v", bad)
		}
	}
}
