package node

import (
	"context"
	"fmt"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/audit"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// people serves a message about users and tokens.
func (s *Server) people(ctx context.Context, m link.Message) (any, error) {
	var b clientwire.PeopleBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return nil, err
	}
	return s.n.people(ctx, m.Kind, b)
}

// people does what a message about users and tokens asks, of who may send it, and
// records it.
func (n *Node) people(ctx context.Context, kind link.Kind, b clientwire.PeopleBody) (any, error) {
	reads := kind == clientwire.KindUserList || kind == clientwire.KindTokenList
	if !reads {
		if err := n.recordable(); err != nil {
			return nil, err
		}
	}
	who := access.From(ctx)
	tenant, err := tenantFor(who, b.Tenant, b.All)
	if err != nil {
		n.crossed(ctx, who, reads, &b)
		return nil, err
	}
	mem := n.Member()
	if mem == nil {
		return nil, errAlone
	}
	p, err := mem.People()
	if err != nil {
		return nil, err
	}
	if reads {
		if err := p.Known(ctx, tenant); err != nil {
			return nil, err
		}
	}
	switch kind {
	case clientwire.KindUserList:
		list, err := p.ListUsers(ctx, tenant)
		return users(list), err
	case clientwire.KindTokenList:
		list, err := p.ListTokens(ctx, tenant)
		return tokens(list, b.User), err
	}
	if tenant == "" {
		return nil, wray.Errorf(wray.CodeBadArgument, "name one tenant")
	}
	out, object, err := any(struct{}{}), fmt.Sprintf("user %s of tenant %s", b.User, tenant), error(nil)
	switch kind {
	case clientwire.KindUserAdd:
		var role access.Role
		if role, err = access.ParseRole(b.Role); err == nil {
			object += ", " + b.Role
			err = p.AddUser(ctx, tenant, b.User, role, b.Service, who.String())
		}
	case clientwire.KindUserSet:
		object += fmt.Sprintf(", role %q", b.Role)
		err = p.ChangeUser(ctx, tenant, b.User, func(u *access.UserRecord) error {
			if b.Role != "" {
				u.Role = b.Role
			}
			if b.Disabled != nil {
				u.Disabled = *b.Disabled
				object += fmt.Sprintf(", disabled %v", *b.Disabled)
			}
			return nil
		})
	case clientwire.KindUserRemove:
		err = p.RemoveUser(ctx, tenant, b.User)
	case clientwire.KindTokenRevoke:
		var t access.TokenRecord
		t, err = p.RevokeToken(ctx, tenant, b.Token)
		object = fmt.Sprintf("token %s of user %s of tenant %s", b.Token, t.User, tenant)
	case clientwire.KindTokenCreate:
		var t clientwire.UserToken
		t, err = newToken(ctx, p, who, tenant, &b)
		t.Addr = mem.Self().Addr
		out = t
		object = fmt.Sprintf("token %s of user %s of tenant %s", t.ID, b.User, tenant)
	default:
		return nil, fmt.Errorf("%w: message %d", link.ErrProtocol, kind)
	}
	n.done(ctx, who, access.PeopleWrite, object, err)
	return out, err
}

// crossed records that somebody has asked about a tenant that is not his.
func (n *Node) crossed(ctx context.Context, who access.Principal, reads bool, b *clientwire.PeopleBody) {
	e := audit.Event{From: access.Addr(ctx), Action: string(access.PeopleWrite), Decision: audit.Denied, Object: fmt.Sprintf("tenant %.70q", b.Tenant)}
	if reads {
		e.Action = string(access.PeopleRead)
	}
	switch {
	case b.All:
		e.Object = "all tenants"
	case b.Token != "":
		e.Object = fmt.Sprintf("token %.70q of ", b.Token) + e.Object
	case b.User != "":
		e.Object = fmt.Sprintf("user %.140q of ", b.User) + e.Object
	}
	n.record(who, e)
}

// newToken makes a token for a user.
func newToken(ctx context.Context, p *access.People, who access.Principal, tenant string, b *clientwire.PeopleBody) (t clientwire.UserToken, err error) {
	o := access.TokenOptions{Life: time.Duration(b.Life), Note: b.Note, By: who.String()}
	if b.Role != "" {
		if o.Role, err = access.ParseRole(b.Role); err != nil {
			return t, err
		}
	}
	secret, rec, err := p.NewToken(ctx, tenant, b.User, o)
	if err != nil {
		return t, err
	}
	t = tokenInfo(tenant, secret.ID(), &rec)
	t.Text = secret.Reveal()
	return t, nil
}

// tenantFor is the tenant that somebody asks about, empty for all. Of another than
// his own only those who run the cluster hear: to all others there is none.
func tenantFor(who access.Principal, asked string, all bool) (string, error) {
	switch {
	case all && who.Runs(access.Admin):
		return "", nil
	case asked == "" || asked == who.Tenant:
		return who.Tenant, nil
	case who.Runs(access.Admin):
		return asked, control.CheckTenant(asked)
	}
	return "", &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is no tenant %.70q", asked), Hint: "make it first: wray tenant create"}
}

func users(list []control.Entry[access.UserRecord]) (out clientwire.Users) {
	out.Users = make([]clientwire.User, 0, len(list)) // JSON has a list, where there are none too
	for _, e := range list {
		u := &e.Value
		out.Users = append(out.Users, clientwire.User{Tenant: e.Tenant, Name: e.Name, Role: u.Role, Service: u.Service, Disabled: u.Disabled, Created: u.Created, By: u.By})
	}
	return out
}

// tokens are those of one user, or of all where it is empty.
func tokens(list []control.Entry[access.TokenRecord], user string) (out clientwire.UserTokens) {
	out.Tokens = []clientwire.UserToken{}
	for _, e := range list {
		if user == "" || e.Value.User == user {
			out.Tokens = append(out.Tokens, tokenInfo(e.Tenant, e.Name, &e.Value))
		}
	}
	return out
}

func tokenInfo(tenant, id string, t *access.TokenRecord) clientwire.UserToken {
	return clientwire.UserToken{Tenant: tenant, User: t.User, ID: id, Role: t.Role, Note: t.Note, Created: t.Created, Expires: t.Expires, Used: t.Used, By: t.By}
}
