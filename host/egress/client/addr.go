package client

import (
	"fmt"
	"net/netip"
)

// special are networks that are not of the public internet, and what each is. Of
// IPv6 all but 2000::/3 is special by itself.
var special = []struct {
	net  netip.Prefix
	what string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "of this host"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "of a carrier's private network"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"), "of a cloud's own services"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "of protocols"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
	{netip.MustParsePrefix("192.31.196.0/24"), "of a sink"},
	{netip.MustParsePrefix("192.52.193.0/24"), "of relays"},
	{netip.MustParsePrefix("192.88.99.0/24"), "of 6to4 relays"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("192.175.48.0/24"), "of a sink"},
	{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/128"), "of no host"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::/96"), "an IPv4 address in an old form"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "a translated private address"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "private"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("2001::/23"), "of protocols, such as Teredo"},
	{netip.MustParsePrefix("2001:db8::/32"), "for documentation"},
	{netip.MustParsePrefix("2002::/16"), "of 6to4, which leads to an IPv4 address"},
	{netip.MustParsePrefix("2620:4f:8000::/48"), "of a sink"},
	{netip.MustParsePrefix("3fff::/20"), "for documentation"},
}

var (
	publicIPv6 = netip.MustParsePrefix("2000::/3")
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
)

// unembed returns the address that a packet to a is for: of one that has an IPv4
// address in it that a translator sends it to, that.
func unembed(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// checkPublic says why an address is not one of the public internet.
func checkPublic(a netip.Addr) error {
	if !a.IsValid() || a.Zone() != "" {
		return fmt.Errorf("the address %v is of one interface", a)
	}
	to := unembed(a)
	for _, s := range special {
		if s.net.Contains(to) {
			return fmt.Errorf("the address %v is %s", a, s.what)
		}
	}
	if to.Is6() && !publicIPv6.Contains(to) {
		return fmt.Errorf("the address %v is not of the public internet", a)
	}
	return nil
}
