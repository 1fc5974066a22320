package wray

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Grants are what a program reaches beside its arguments and the objects that it
// is given: directories and servers. A job has those of its flags. A task may be
// given fewer, and never more: what it may is what its job, whoever submitted it,
// and its own Grants all have.
type Grants struct {
	Dirs   []DirGrant
	Egress []EgressRule
}

// DirGrant is a granted directory, by its path in the sandbox.
type DirGrant struct {
	Guest    string
	ReadOnly bool
}

// The text of Grants is a list of these, each with a zero byte after it:
// dir=/PATH, dir=/PATH:ro and egress=RULE, or noGrants alone.
const (
	grantDir    = "dir="
	grantEgress = "egress="
	noGrants    = "none"
)

// MaxGrants bounds what Grants name, and MaxGrantsText the bytes of their text.
const (
	MaxGrants     = 64
	MaxGrantsText = 16 << 10
)

// ParseGrant adds to g what a text names: dir=/PATH, dir=/PATH:ro or egress=RULE.
func (g *Grants) ParseGrant(text string) error {
	if len(g.Dirs)+len(g.Egress) >= MaxGrants {
		return Errorf(CodeBadArgument, "more than %d grants", MaxGrants)
	}
	if rule, ok := strings.CutPrefix(text, grantEgress); ok {
		r, err := ParseEgress(rule)
		if err != nil {
			return err
		}
		g.Egress = append(g.Egress, r)
		return nil
	}
	if dir, ok := strings.CutPrefix(text, grantDir); ok {
		dir, ro := strings.CutSuffix(dir, ":ro")
		if !strings.HasPrefix(dir, "/") || strings.Contains(dir, "\x00") || len(dir) > 4<<10 {
			return Errorf(CodeBadArgument, "the granted directory %.80q has no path that begins with /", dir)
		}
		g.Dirs = append(g.Dirs, DirGrant{Guest: dir, ReadOnly: ro})
		return nil
	}
	return &Error{Code: CodeBadArgument, Message: fmt.Sprintf("%.80q is no grant", text),
		Hint: "write dir=/PATH, dir=/PATH:ro or egress=HOST[:PORT]"}
}

// Append appends g as ParseGrants reads it.
func (g *Grants) Append(b []byte) []byte {
	if len(g.Dirs)+len(g.Egress) == 0 {
		return append(b, noGrants+"\x00"...)
	}
	for _, d := range g.Dirs {
		b = append(append(b, grantDir...), d.Guest...)
		if d.ReadOnly {
			b = append(b, ":ro"...)
		}
		b = append(b, 0)
	}
	for _, r := range g.Egress {
		b = append(append(append(b, grantEgress...), r.String()...), 0)
	}
	return b
}

// ParseGrants reads what Append has written, or a stranger: a grant that is not
// known is an error, and no grant that is left out.
func ParseGrants(text string) (*Grants, error) {
	if len(text) > MaxGrantsText {
		return nil, Errorf(CodeBadArgument, "grants of %d bytes, the most are %d", len(text), MaxGrantsText)
	}
	g := &Grants{}
	if text == noGrants+"\x00" {
		return g, nil
	}
	for text != "" {
		one, rest, ok := strings.Cut(text, "\x00")
		if !ok {
			return nil, Errorf(CodeBadArgument, "a zero byte is missing in grants")
		}
		if err := g.ParseGrant(one); err != nil {
			return nil, err
		}
		text = rest
	}
	if len(g.Dirs)+len(g.Egress) == 0 {
		return nil, Errorf(CodeBadArgument, "grants that name nothing")
	}
	return g, nil
}

// Dir reports whether g has a directory, and for reading alone.
func (g *Grants) Dir(guest string) (ok, readOnly bool) {
	readOnly = true
	for _, d := range g.Dirs {
		if path.Clean(d.Guest) == path.Clean(guest) {
			ok, readOnly = true, readOnly && d.ReadOnly
		}
	}
	return ok, ok && readOnly
}

// Policy is what the jobs of a tenant may be granted. The zero Policy is nothing.
type Policy struct {
	// Dirs are directories of nodes: each may be granted, and what is below it; with
	// :ro at the end for reading alone.
	Dirs []string `cbor:"1,keyasint,omitempty" json:"dirs,omitempty"`
	// Egress are the servers that may be asked; see EgressRule.
	Egress []string `cbor:"2,keyasint,omitempty" json:"egress,omitempty"`
	// Private are the networks, as ADDRESS/BITS, whose addresses may be asked although
	// they are not of the public internet. Names that lead there are taken then.
	Private []string `cbor:"3,keyasint,omitempty" json:"private,omitempty"`
}

// MaxPolicy bounds the entries of each of a Policy's lists.
const MaxPolicy = 64

// AllDirs in Policy.Dirs is every directory.
const AllDirs = "/"

// DefaultPolicy is the policy where none was set: of the tenant of those who run
// the cluster it is all but private networks, of others nothing.
func DefaultPolicy(home bool) Policy {
	if home {
		return Policy{Dirs: []string{AllDirs}, Egress: []string{AnyEgress.String()}}
	}
	return Policy{}
}

// neverPrivate are networks that no policy opens: there answer those who tell
// machines their credentials, and nobody, or everybody.
var neverPrivate = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("::/128"),
}

// Check says what is wrong with a policy, if anything.
func (p *Policy) Check() error {
	for _, list := range [][]string{p.Dirs, p.Egress, p.Private} {
		if len(list) > MaxPolicy {
			return Errorf(CodeBadArgument, "a policy with %d entries of a kind, the most are %d", len(list), MaxPolicy)
		}
	}
	for _, d := range p.Dirs {
		dir, _ := strings.CutSuffix(d, ":ro")
		if !absolute(dir) || len(dir) > 4<<10 || strings.Contains(dir, "\x00") {
			return Errorf(CodeBadArgument, "the directory %.80q of a policy is not a whole path", d)
		}
	}
	if _, err := ParseEgressRules(p.Egress); err != nil {
		return err
	}
	_, err := p.PrivateNetworks()
	return err
}

// absolute reports whether a path is whole, on whatever system the nodes have.
func absolute(dir string) bool {
	return strings.HasPrefix(dir, "/") || len(dir) > 2 && dir[1] == ':' && (dir[2] == '\\' || dir[2] == '/')
}

// PrivateNetworks returns Private.
func (p *Policy) PrivateNetworks() ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, text := range p.Private {
		n, err := netip.ParsePrefix(text)
		if err != nil || n != n.Masked() || n.Addr().Is4In6() {
			return nil, &Error{Code: CodeBadArgument, Message: fmt.Sprintf("%.80q is no network", text),
				Hint: "write ADDRESS/BITS, such as 10.1.0.0/16, with nothing set beyond the bits"}
		}
		if i := slices.IndexFunc(neverPrivate, n.Overlaps); i >= 0 {
			return nil, &Error{Code: CodeBadArgument, Message: fmt.Sprintf("the network %v has addresses of %v, which no policy opens", n, neverPrivate[i]),
				Hint: "name smaller networks; there are no servers of yours at link-local addresses"}
		}
		list = append(list, n)
	}
	return list, nil
}

// AllowsEgress reports whether a rule may be granted.
func (p *Policy) AllowsEgress(r EgressRule) bool {
	rules, err := ParseEgressRules(p.Egress)
	return err == nil && slices.ContainsFunc(rules, func(o EgressRule) bool { return o.Covers(r) })
}

// AllowsDir reports whether a directory, by its whole path without links, may be
// granted. within reports whether its second argument is its first, or below it,
// by the rules of the system.
func (p *Policy) AllowsDir(dir string, readOnly bool, within func(outer, dir string) bool) bool {
	return slices.ContainsFunc(p.Dirs, func(d string) bool {
		outer, ro := strings.CutSuffix(d, ":ro")
		return (readOnly || !ro) && (outer == AllDirs || within(outer, dir))
	})
}

// Refused is the error about a grant that a tenant's policy does not have. grant
// and flag are as they would be given to wray policy set.
func (p *Policy) Refused(tenant, what, flag, value string) *Error {
	return &Error{Code: CodeDenied, Message: fmt.Sprintf("the policy of tenant %s does not let its jobs have %s", tenant, what),
		Hint: fmt.Sprintf("an admin of the cluster can allow it: wray policy set %s --%s %s; see wray policy show %s", tenant, flag, value, tenant)}
}
