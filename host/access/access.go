// Package access decides who may do what. Each request gets a [Principal]: who
// calls, for which tenant, in which role. Each thing that can be called stands
// in one table ([Decide]) with who may; what does not stand there is refused,
// whoever calls.
//
// A principal is known by one of four things: a node's or an operator's
// certificate (package auth), a token of a user ([Checker]), or being the user
// who runs the node, at its Unix socket. [People] keeps users and tokens in the
// control state; a [Checker] follows them, so that no check waits for it.
package access

import (
	"context"
	"errors"
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/auth"
)

// Home is the tenant of those who run the cluster: its admins and operators may
// do what concerns no tenant, or another. A node that is alone has no other.
const Home = "local"

// Sentinels, to match with errors.Is.
var (
	// ErrUnknown says that it is not known who calls. It does not say why: a token
	// that is expired, revoked or made up looks the same.
	ErrUnknown = errors.New("who calls is not known")
	// ErrDenied says that who calls may not do that, or that there is no such
	// thing to do: which, it does not say.
	ErrDenied = errors.New("that is not for who calls")
)

// Role is what a person may do within a tenant. Each may do all that those
// before it may.
type Role uint8

// The roles.
const (
	NoRole    Role = iota
	Viewer         // sees jobs and what they print
	Developer      // submits and stops jobs
	Operator       // sees to nodes, of tenant Home
	Admin          // sees to users, tokens, tenants and quotas
)

var roleNames = [...]string{"", "viewer", "developer", "operator", "admin"}

// String is the role's name, as users write it.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role %d", r)
}

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	for r, name := range roleNames {
		if r > 0 && s == name {
			return Role(r), nil
		}
	}
	return NoRole, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is no role %.40q", s), Hint: "the roles are viewer, developer, operator and admin"}
}

// Kind is by what a principal is known.
type Kind uint8

// The kinds.
const (
	Nobody  Kind = iota
	Joiner       // a machine that has a join token, which it shows later
	Node         // a node of the cluster, by its certificate
	Certed       // an operator, by a certificate
	User         // a person, by a token
	Service      // a service account, by a token
	Local        // the user who runs the node, at its Unix socket
)

var kindNames = [...]string{"nobody", "joiner", "node", "operator", "user", "service", "local user"}

// String names the kind.
func (k Kind) String() string { return kindNames[min(int(k), len(kindNames)-1)] }

// Principal is who makes a request. The zero one is nobody.
type Principal struct {
	Kind   Kind
	Tenant string // empty for nobody, joiners and nodes
	Name   string // of the node, user or operator
	Role   Role   // NoRole for nobody, joiners and nodes
	Token  string // the ID of the token that it is known by, if it is by one
	// Paused says that the tenant takes nothing new: see Rule.New.
	Paused bool
}

// String names the principal for logs: there is no secret in it.
func (p Principal) String() string {
	switch p.Kind {
	case Nobody, Joiner:
		return p.Kind.String()
	case Node:
		return "node " + p.Name
	}
	return fmt.Sprintf("%s %s of tenant %s", p.Kind, p.Name, p.Tenant)
}

// Short is who it is in the record of a job: kind and name.
func (p Principal) Short() string {
	if p.Kind == Nobody || p.Name == "" {
		return p.Kind.String()
	}
	return p.Kind.String() + " " + p.Name
}

// Person reports whether a tenant's user, of whatever kind, is meant and no node.
func (p Principal) Person() bool { return p.Kind >= Certed }

// Runs reports whether the principal is of those who run the cluster, in at
// least a role: what it does may concern any tenant.
func (p Principal) Runs(least Role) bool { return p.Person() && p.Tenant == Home && p.Role >= least }

// Certified is who shows a certificate that was verified.
func Certified(id auth.Identity) Principal {
	switch id.Role {
	case auth.RoleNode:
		return Principal{Kind: Node, Name: id.Name}
	case auth.RoleOperator:
		return Principal{Kind: Certed, Tenant: Home, Name: id.Name, Role: Developer}
	}
	return Principal{}
}

// LocalUser is who runs the node, or speaks for who does.
func LocalUser(uid int) Principal {
	return Principal{Kind: Local, Tenant: Home, Name: fmt.Sprintf("uid %d", uid), Role: Admin}
}

type key struct{}

// With returns a context of a request that p makes, which was let in.
func With(ctx context.Context, p Principal) context.Context { return context.WithValue(ctx, key{}, p) }

type addrKey struct{}

// At returns a context of a request that comes from an address, for the audit log.
func At(ctx context.Context, addr string) context.Context {
	return context.WithValue(ctx, addrKey{}, addr)
}

// Addr returns the address that the request of a context comes from; "" for none.
func Addr(ctx context.Context) string {
	addr, _ := ctx.Value(addrKey{}).(string)
	return addr
}

// From returns who makes the request of a context; nobody where none was let in.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(key{}).(Principal)
	return p
}
