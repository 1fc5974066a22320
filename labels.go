package wray

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// Label is a word about a node that tasks may ask for, such as zone=west.
type Label struct{ Key, Value string }

// String returns l as key=value.
func (l Label) String() string { return l.Key + "=" + l.Value }

// Keys of the labels that every node has. Others may not begin with
// LabelPrefix.
const (
	LabelPrefix = "wray/"
	LabelNode   = LabelPrefix + "node" // its name
	LabelOS     = LabelPrefix + "os"   // as Go calls it, such as linux
	LabelArch   = LabelPrefix + "arch" // likewise, such as amd64

	// LabelGroup is the group of a node that is started and removed as others like
	// it. Not every node has one.
	LabelGroup = LabelPrefix + "group"
)

// Bounds of labels and of what is asked of them.
const (
	MaxLabels      = 32   // of a node
	MaxLabelPart   = 128  // bytes of a key, and of a value
	MaxSelectors   = 16   // of a task
	MaxAlternative = 16   // values of a selector
	MaxSelector    = 1024 // bytes of one, as text
	MaxNodeName    = 256  // bytes of a node's name, where a task asks for it
)

// Check says what is wrong with a label, if anything.
func (l Label) Check() error {
	for _, p := range []struct{ what, text string }{{"key", l.Key}, {"value", l.Value}} {
		if p.text == "" || len(p.text) > MaxLabelPart {
			return fmt.Errorf("a label's %s has %d bytes: from 1 to %d are wanted", p.what, len(p.text), MaxLabelPart)
		}
		for i := range len(p.text) {
			if !labelByte(p.text[i]) {
				return fmt.Errorf("the label's %s %q: letters, digits and any of . _ - / : @ + are wanted", p.what, p.text)
			}
		}
	}
	return nil
}

// labelByte reports whether keys and values may have c: nothing that a
// [Selector] is written with.
func labelByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-/:@+", c) >= 0
}

// Selector says what a node's labels must be. Values are the ones that the
// label of the key may have; without any the node has the label, whatever its
// value. Not turns that around, so that a node without the label is taken.
type Selector struct {
	Key    string
	Values []string // sorted, each once
	Not    bool
}

// Matches reports whether a node with these labels is one that s means.
func (s *Selector) Matches(labels []Label) bool {
	for i := range labels {
		if l := &labels[i]; l.Key == s.Key {
			return (len(s.Values) == 0 || slices.Contains(s.Values, l.Value)) != s.Not
		}
	}
	return s.Not
}

// String returns s as ParseSelector reads it, in one way of several.
func (s Selector) String() string {
	switch {
	case len(s.Values) == 0 && s.Not:
		return "!" + s.Key
	case len(s.Values) == 0:
		return s.Key
	case len(s.Values) == 1 && s.Not:
		return s.Key + "!=" + s.Values[0]
	case len(s.Values) == 1:
		return s.Key + "=" + s.Values[0]
	case s.Not:
		return s.Key + " notin (" + strings.Join(s.Values, ",") + ")"
	}
	return s.Key + " in (" + strings.Join(s.Values, ",") + ")"
}

// ParseSelector reads a selector, as Kubernetes writes one requirement: "gpu",
// "!spot", "zone=west", "zone==west", "zone!=east", "zone in (west, north)" and
// "zone notin (east, south)".
func ParseSelector(text string) (Selector, error) {
	bad := func(why string) (Selector, error) {
		return Selector{}, fmt.Errorf("the selector %.80q: %s", text, why)
	}
	if len(text) > MaxSelector {
		return bad(fmt.Sprintf("it has %d bytes, the most are %d", len(text), MaxSelector))
	}
	var s Selector
	rest := strings.TrimSpace(text)
	if after, not := strings.CutPrefix(rest, "!"); not {
		s.Not, rest = true, strings.TrimSpace(after)
	}
	end := 0
	for end < len(rest) && labelByte(rest[end]) {
		end++
	}
	s.Key, rest = rest[:end], strings.TrimLeft(rest[end:], " ")
	spaced := end+len(rest) < len(strings.TrimSpace(text))
	list := ""
	switch {
	case rest == "":
	case s.Not:
		return bad("after ! a key alone is wanted")
	case strings.HasPrefix(rest, "!="):
		s.Not, list = true, rest[2:]
	case strings.HasPrefix(rest, "=="):
		list = rest[2:]
	case strings.HasPrefix(rest, "="):
		list = rest[1:]
	default:
		var ok bool
		if list, ok = strings.CutPrefix(rest, "notin"); ok {
			s.Not = true
		} else if list, ok = strings.CutPrefix(rest, "in"); !ok {
			return bad("after the key one of =, ==, !=, in and notin is wanted")
		}
		list = strings.TrimSpace(list)
		if !spaced || len(list) < 2 || list[0] != '(' || list[len(list)-1] != ')' {
			return bad("values in parentheses are wanted, as in: zone in (west, north)")
		}
		list = list[1 : len(list)-1]
		if strings.Count(list, ",") >= MaxAlternative {
			return bad(fmt.Sprintf("the most are %d values", MaxAlternative))
		}
		for v := range strings.SplitSeq(list, ",") {
			s.Values = append(s.Values, strings.TrimSpace(v))
		}
		rest = ""
	}
	if rest != "" {
		s.Values = []string{strings.TrimSpace(list)}
	}
	if err := (Label{s.Key, "x"}).Check(); err != nil {
		return bad(err.Error())
	}
	for _, v := range s.Values {
		if err := (Label{"x", v}).Check(); err != nil {
			return bad(err.Error())
		}
	}
	slices.Sort(s.Values)
	s.Values = slices.Compact(s.Values)
	return s, nil
}

// Check says what is wrong with a selector that was not parsed, if anything.
func (s *Selector) Check() error {
	if len(s.Values) > MaxAlternative {
		return fmt.Errorf("a selector of %d values, the most are %d", len(s.Values), MaxAlternative)
	}
	if err := (Label{s.Key, "x"}).Check(); err != nil {
		return err
	}
	for _, v := range s.Values {
		if err := (Label{"x", v}).Check(); err != nil {
			return err
		}
	}
	return nil
}

// Placement says which nodes a task, or an actor, is to run on. The zero
// Placement is the default: the node that submits it, and, where that has no
// room, another.
type Placement struct {
	Spread bool       // over all nodes, in place of this one first; not with Node
	Node   string     // the name of the one node that it may run on
	Soft   bool       // and, where that is not there or has no room, on another
	Where  []Selector // what any node that it runs on must have
}

// IsZero reports whether p is the default.
func (p *Placement) IsZero() bool { return p == nil || !p.Spread && p.Node == "" && len(p.Where) == 0 }

// Check says what is wrong with a placement, if anything.
func (p *Placement) Check() error {
	switch {
	case p.Spread && p.Node != "":
		return fmt.Errorf("a task is spread, or is on node %q, and not both", p.Node)
	case p.Soft && p.Node == "":
		return fmt.Errorf("a soft placement names no node")
	case len(p.Node) > MaxNodeName || strings.ContainsRune(p.Node, 0):
		return fmt.Errorf("a node's name of %d bytes: at most %d, and no zero byte, are wanted", len(p.Node), MaxNodeName)
	case len(p.Where) > MaxSelectors:
		return fmt.Errorf("%d label selectors, the most are %d", len(p.Where), MaxSelectors)
	}
	for i := range p.Where {
		if err := p.Where[i].Check(); err != nil {
			return err
		}
	}
	return nil
}

// Allows reports whether p lets a task run on a node of a name and labels, and,
// where it does not, why.
func (p *Placement) Allows(node string, labels []Label) (why string, ok bool) {
	if p.IsZero() {
		return "", true
	}
	if p.Node != "" && !p.Soft && p.Node != node {
		return fmt.Sprintf("the task is to run on node %q", p.Node), false
	}
	for i := range p.Where {
		if s := &p.Where[i]; !s.Matches(labels) {
			return fmt.Sprintf("its labels are not as the task wants them: %s", s), false
		}
	}
	return "", true
}

// NodeLabels returns the labels of the node of this process: those that every
// node has, and others.
func NodeLabels(name string, others []Label) []Label {
	list := []Label{{LabelOS, runtime.GOOS}, {LabelArch, runtime.GOARCH}}
	if l := (Label{LabelNode, name}); l.Check() == nil {
		list = append(list, l)
	}
	return append(list, others...)
}

// Words of a placement as it travels: clauses, each a word, a zero byte, what
// it is about, a zero byte. Bounds are those of Check.
const (
	clauseSpread = "spread"
	clauseNode   = "node"
	clausePrefer = "prefer" // a node, softly
	clauseWhere  = "where"  // a selector
)

// MaxPlacementText bounds the bytes of a placement as Append writes it.
const MaxPlacementText = MaxSelectors*(len(clauseWhere)+1+MaxSelector+1) + len(clausePrefer) + 1 + MaxNodeName + 1

// Append appends p as ParsePlacement reads it; nothing for the default.
func (p *Placement) Append(b []byte) []byte {
	clause := func(word, about string) { b = append(append(append(append(b, word...), 0), about...), 0) }
	if p.IsZero() {
		return b
	}
	if p.Spread {
		clause(clauseSpread, "")
	}
	if p.Node != "" && p.Soft {
		clause(clausePrefer, p.Node)
	} else if p.Node != "" {
		clause(clauseNode, p.Node)
	}
	for _, s := range p.Where {
		clause(clauseWhere, s.String())
	}
	return b
}

// ParsePlacement reads what Append has written, or a stranger: a clause that is
// not known is an error, as it may matter where the task runs.
func ParsePlacement(text string) (*Placement, error) {
	if len(text) > MaxPlacementText {
		return nil, fmt.Errorf("a placement of %d bytes, the most are %d", len(text), MaxPlacementText)
	}
	var p Placement
	for text != "" {
		word, rest, ok := strings.Cut(text, "\x00")
		about, rest, ok2 := strings.Cut(rest, "\x00")
		if !ok || !ok2 {
			return nil, fmt.Errorf("a zero byte is missing in a placement")
		}
		text = rest
		switch {
		case word == clauseSpread && about == "" && !p.Spread:
			p.Spread = true
		case (word == clauseNode || word == clausePrefer) && about != "" && p.Node == "":
			p.Node, p.Soft = about, word == clausePrefer
		case word == clauseWhere && len(p.Where) < MaxSelectors:
			s, err := ParseSelector(about)
			if err != nil {
				return nil, err
			}
			p.Where = append(p.Where, s)
		default:
			return nil, fmt.Errorf("the clause %.40q of a placement is not known, has nothing to be about, or is there too often", word)
		}
	}
	return &p, p.Check()
}
