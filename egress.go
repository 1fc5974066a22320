package wray

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// EgressRule says which servers a program may ask over HTTP: those of a name or
// an address, and of a port. Its text is HOST[:PORT]. HOST is a name
// (api.example.com), all names below one (*.example.com), an IPv4 address, an
// IPv6 address in brackets, or * for any; without a PORT it is 443 and 80, and
// with * any. A name beyond ASCII is written as it is asked for, xn--….
//
// A name has one spelling here, and so has an address: whatever else software
// takes for one of them is no host at all.
type EgressRule struct {
	host string // "*" for any; "*.name" for those below; else as CheckHost returns it
	port int    // 0: 80 and 443; -1: any
}

// Rules have at most these bounds.
const (
	MaxEgressRules = 64  // of one job, and of one policy
	maxHost        = 253 // bytes of a name
)

// Ports of a rule without one.
const (
	PortHTTP  = 80
	PortHTTPS = 443
)

// AnyEgress is the rule that holds for every host and port.
var AnyEgress = EgressRule{host: "*", port: -1}

// ParseEgress reads a rule. Errors are of CodeBadArgument.
func ParseEgress(text string) (EgressRule, error) {
	var r EgressRule
	host, port, err := splitHostPort(text)
	if err != nil {
		return r, badEgress(text, err.Error())
	}
	switch {
	case port == "*":
		r.port = -1
	case port != "":
		if r.port, err = checkPort(port); err != nil {
			return r, badEgress(text, err.Error())
		}
	}
	below, wild := strings.CutPrefix(host, "*.")
	switch {
	case host == "*":
		r.host = host
		return r, nil
	case wild:
		host = below
	}
	if r.host, err = CheckHost(host); err != nil {
		return r, badEgress(text, err.Error())
	}
	if wild {
		if isAddr(r.host) {
			return r, badEgress(text, "there is nothing below an address")
		}
		r.host = "*." + r.host
	}
	return r, nil
}

func badEgress(text, why string) error {
	return &Error{Code: CodeBadArgument, Message: fmt.Sprintf("egress %.300q: %s", text, why),
		Hint: "write HOST or HOST:PORT, such as api.example.com, *.example.com:8443 or [2001:db8::1]:443"}
}

// ParseEgressRules reads several rules, MaxEgressRules at most.
func ParseEgressRules(texts []string) ([]EgressRule, error) {
	if len(texts) > MaxEgressRules {
		return nil, Errorf(CodeBadArgument, "%d rules of egress, the most are %d", len(texts), MaxEgressRules)
	}
	rules := make([]EgressRule, 0, len(texts))
	for _, text := range texts {
		r, err := ParseEgress(text)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// splitHostPort parts HOST[:PORT], [HOST] and [HOST]:PORT. A host with a colon and
// without brackets is none.
func splitHostPort(text string) (host, port string, err error) {
	if rest, ok := strings.CutPrefix(text, "["); ok {
		host, port, ok = strings.Cut(rest, "]")
		if !ok || !strings.Contains(host, ":") {
			return "", "", fmt.Errorf("there is no IPv6 address in the brackets")
		}
		if port == "" {
			return host, "", nil
		}
		if port, ok = strings.CutPrefix(port, ":"); !ok || port == "" {
			return "", "", fmt.Errorf("what follows the address is not a port")
		}
		return host, port, nil
	}
	host, port, ok := strings.Cut(text, ":")
	if ok && port == "" {
		return "", "", fmt.Errorf("there is no port behind the colon")
	}
	if strings.Contains(port, ":") {
		return "", "", fmt.Errorf("an IPv6 address stands in brackets")
	}
	return host, port, nil
}

func checkPort(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || text[0] == '0' || text[0] == '+' {
		return 0, fmt.Errorf("%.20q is not a port", text)
	}
	return int(n), nil
}

// CheckHost returns a host as rules are compared with it, in lower case, or what
// is wrong with it. It takes names of letters, digits and hyphens, and addresses
// in the one way in which netip writes them, IPv6 without brackets: no other
// spelling of a number (0x7f.1, 2130706433, 0177.0.0.1, ::ffff:127.0.0.1), no
// zone, no dot at the end, and nothing beyond ASCII.
func CheckHost(host string) (string, error) {
	if host == "" || len(host) > maxHost {
		return "", fmt.Errorf("a host has 1 to %d bytes", maxHost)
	}
	for i := range len(host) {
		if c := host[i]; c <= ' ' || c >= 0x7f {
			return "", fmt.Errorf("a host is plain ASCII: write a name as it is asked for, xn--…")
		}
	}
	host = strings.ToLower(host)
	if strings.Contains(host, ":") {
		a, err := netip.ParseAddr(host)
		if err != nil || a.Zone() != "" || a.Is4In6() || a.String() != host {
			return "", fmt.Errorf("%.60q is not how an IPv6 address is written", host)
		}
		return host, nil
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return "", fmt.Errorf("%.80q is not a name", host)
		}
		for i := range len(l) {
			if c := l[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return "", fmt.Errorf("%.80q is not a name", host)
			}
		}
	}
	// What ends like a number many take for an address.
	if last := labels[len(labels)-1]; numeric(last) {
		if a, err := netip.ParseAddr(host); err != nil || a.String() != host {
			return "", fmt.Errorf("%.80q is not how an IPv4 address is written", host)
		}
	}
	return host, nil
}

// numeric reports whether a label is a number as inet_aton reads it.
func numeric(l string) bool {
	if hex, ok := strings.CutPrefix(l, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(l, "0123456789") == ""
}

func isAddr(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// Allows reports whether a host, as CheckHost returns it, may be asked at a port.
func (r EgressRule) Allows(host string, port int) bool {
	if !r.hasPort(port) {
		return false
	}
	below, wild := strings.CutPrefix(r.host, "*.")
	switch {
	case r.host == "*":
		return true
	case wild:
		return !isAddr(host) && strings.HasSuffix(host, "."+below)
	}
	return host == r.host
}

func (r EgressRule) hasPort(port int) bool {
	switch r.port {
	case -1:
		return port > 0
	case 0:
		return port == PortHTTP || port == PortHTTPS
	}
	return port == r.port
}

// Covers reports whether all that o allows r allows too.
func (r EgressRule) Covers(o EgressRule) bool {
	switch {
	case r.port == -1, r.port == o.port:
	case r.port == 0 && (o.port == PortHTTP || o.port == PortHTTPS):
	default:
		return false
	}
	rest, wild := strings.CutPrefix(o.host, "*.")
	switch below, ok := strings.CutPrefix(r.host, "*."); {
	case r.host == "*" || r.host == o.host:
		return true
	case !ok || o.host == "*" || isAddr(o.host):
		return false
	case wild:
		return strings.HasSuffix(rest, "."+below)
	default:
		return strings.HasSuffix(o.host, "."+below)
	}
}

// Any reports whether r holds for every host.
func (r EgressRule) Any() bool { return r.host == "*" }

// String returns r as ParseEgress reads it.
func (r EgressRule) String() string {
	host := r.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	switch r.port {
	case -1:
		return host + ":*"
	case 0:
		return host
	}
	return host + ":" + strconv.Itoa(r.port)
}

// EgressAllowed reports whether one of rules allows a host at a port.
func EgressAllowed(rules []EgressRule, host string, port int) bool {
	for _, r := range rules {
		if r.Allows(host, port) {
			return true
		}
	}
	return false
}
