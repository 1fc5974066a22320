package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/internal/nodeaddr"
	"github.com/wray-project/wray/internal/peoplehttp"
)

// peopleFlags say which head is asked, about which tenant.
type peopleFlags struct {
	address, tenant string
	all, asJSON     bool
}

func (p *peopleFlags) flags(cmd *cobra.Command, lists bool) {
	f := cmd.Flags()
	f.StringVar(&p.address, "address", "", "ask the head at this `ADDRESS`: as wray start prints it, or HOST:PORT after wray login (default your node's)")
	f.StringVar(&p.tenant, "tenant", "", "the `TENANT` that it is about (default your own)")
	if lists {
		f.BoolVar(&p.all, "all-tenants", false, "list those of all tenants")
		f.BoolVar(&p.asJSON, "json", false, "print JSON, one object a line")
	}
}

// ask asks a head of the user's, or over the network one at HOST:PORT.
func (p *peopleFlags) ask(cmd *cobra.Command, kind link.Kind, b clientwire.PeopleBody, out any) error {
	address := cmp.Or(p.address, os.Getenv(nodeaddr.Env))
	if !overNetwork(address) {
		return ask(cmd, p.address, kind, b, out)
	}
	t, ok, err := userToken(address)
	if err != nil {
		return err
	}
	if !ok {
		return &usageError{withHint(fmt.Errorf("no token is kept for %s", address), "log in: wray login --address %s", address)}
	}
	pin, ok := t.Pin()
	if !ok {
		return &usageError{fmt.Errorf("the token for %s names no cluster", address)}
	}
	tr := &http.Transport{TLSClientConfig: auth.PeopleConfig(pin, "http/1.1", nil)}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return peoplehttp.Do(cmd.Context(), client, address, http.Header{"Authorization": {"Bearer " + t.Reveal()}}, kind, b, out)
}

// group is a command that has commands below it and does nothing.
func group(use, short, long string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{withHint(fmt.Errorf("there is no command %q", use+" "+args[0]), "see wray %s --help", use)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(below...)
	return cmd
}

func newUser() *cobra.Command {
	return group("user", "Make, list, change and remove users of a cluster",
		`User sees to who may use a cluster: people and service accounts, each of a tenant and
with a role. A viewer sees jobs, a developer submits and stops them too, an operator of
tenant local sees to nodes too, an admin to users and tokens too. Users of tenant local
run the cluster: what they may, they may for every tenant.`,
		newUserAdd(), newUserList(), newUserSet(), newUserRemove())
}

func newUserAdd() *cobra.Command {
	var p peopleFlags
	var b clientwire.PeopleBody
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a user", Args: cobra.ExactArgs(1),
		Example: "  wray user add ann --role developer\n  wray user add ci --service --role developer --tenant acme",
		RunE: func(cmd *cobra.Command, args []string) error {
			b.User, b.Tenant = args[0], p.tenant
			if err := p.ask(cmd, clientwire.KindUserAdd, b, &struct{}{}); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "user %s, %s; a token for it: wray token create %s%s\n", line(args[0]), line(b.Role), line(args[0]), tenantFlag(p.tenant))
			return err
		},
	}
	p.flags(cmd, false)
	f := cmd.Flags()
	f.StringVar(&b.Role, "role", "developer", "what it may: viewer, developer, operator or admin")
	f.BoolVar(&b.Service, "service", false, "it is a program's account, and no person's")
	return cmd
}

func tenantFlag(tenant string) string {
	if tenant == "" {
		return ""
	}
	return " --tenant " + line(tenant)
}

func newUserSet() *cobra.Command {
	var p peopleFlags
	var b clientwire.PeopleBody
	var disable, enable bool
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Change a user's role, or whether it is let in", Args: cobra.ExactArgs(1),
		Long: `Set changes a user. Its tokens heed that at once, everywhere, and what it does then that
it may do no more ends.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if b.Role == "" && !disable && !enable || disable && enable {
				return &usageError{withHint(fmt.Errorf("nothing is said that is to change, or two things"), "use --role, or one of --disable and --enable")}
			}
			if disable || enable {
				b.Disabled = &disable
			}
			b.User, b.Tenant = args[0], p.tenant
			return p.ask(cmd, clientwire.KindUserSet, b, &struct{}{})
		},
	}
	p.flags(cmd, false)
	f := cmd.Flags()
	f.StringVar(&b.Role, "role", "", "what it may: viewer, developer, operator or admin")
	f.BoolVar(&disable, "disable", false, "let it in no more, until --enable; its tokens are kept")
	f.BoolVar(&enable, "enable", false, "let it in again")
	return cmd
}

func newUserRemove() *cobra.Command {
	var p peopleFlags
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Remove a user and its tokens", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.ask(cmd, clientwire.KindUserRemove, clientwire.PeopleBody{User: args[0], Tenant: p.tenant}, &struct{}{})
		},
	}
	p.flags(cmd, false)
	return cmd
}

func newUserList() *cobra.Command {
	var p peopleFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List users", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l clientwire.Users
			if err := p.ask(cmd, clientwire.KindUserList, clientwire.PeopleBody{Tenant: p.tenant, All: p.all}, &l); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if p.asJSON {
				return printLines(out, l.Users)
			}
			w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "TENANT\tUSER\tROLE\tKIND\tSINCE\tBY")
			for i := range l.Users {
				u := &l.Users[i]
				kind := "person"
				if u.Service {
					kind = "service"
				}
				if u.Disabled {
					kind += ", disabled"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", line(u.Tenant), line(u.Name), line(u.Role), kind, date(u.Created), line(u.By))
			}
			return w.Flush()
		},
	}
	p.flags(cmd, true)
	return cmd
}

// printLines prints values as JSON, one a line.
func printLines[T any](out io.Writer, list []T) error {
	enc := newJSON(out)
	for i := range list {
		if err := enc.Encode(list[i]); err != nil {
			return err
		}
	}
	return nil
}

// date is a time of Unix milliseconds; - for none.
func date(ms int64) string {
	if ms == 0 {
		return "-"
	}
	return time.UnixMilli(ms).Format(time.DateTime)
}

func newToken() *cobra.Command {
	return group("token", "Make, list and revoke tokens of users",
		`Token sees to tokens, by which a node of the cluster knows a user: see wray login. A
token is shown once, when it is made. For tokens with which nodes join, see wray node
token.`,
		newTokenCreate(), newTokenList(), newTokenRevoke())
}

func newTokenCreate() *cobra.Command {
	var p peopleFlags
	var b clientwire.PeopleBody
	var life span
	var out string
	cmd := &cobra.Command{
		Use: "create USER", Short: "Make a token for a user", Args: cobra.ExactArgs(1),
		Long: `Create makes a token for a user and prints it, this once: nobody can see it again. It
is a secret: whoever has it is the user. With --out it goes to a file that is not there
yet, for you alone.`,
		Example: "  wray token create ann --valid 24h --note laptop\n  wray token create ci --tenant acme --out ci.token",
		RunE: func(cmd *cobra.Command, args []string) error {
			b.User, b.Tenant, b.Life = args[0], p.tenant, int64(life)
			var t clientwire.UserToken
			make := func() ([]byte, error) {
				err := p.ask(cmd, clientwire.KindTokenCreate, b, &t)
				return []byte(t.Text + "\n"), err
			}
			w := cmd.OutOrStdout()
			if out == "" {
				if _, err := make(); err != nil {
					return err
				}
				if p.asJSON {
					return newJSON(w).Encode(t)
				}
				_, err := fmt.Fprintf(w, "token %s of user %s, good until %s:\n  %s\nwhere it is used: wray login --address %s\n", t.ID, line(t.User), date(t.Expires), t.Text, line(t.Addr))
				return err
			}
			if err := keepCredential(out, make); err != nil {
				return err
			}
			t.Text = ""
			if p.asJSON {
				return newJSON(w).Encode(t)
			}
			_, err := fmt.Fprintf(w, "token %s of user %s, good until %s, is in %s: wray login --address %s < %s\n", t.ID, line(t.User), date(t.Expires), out, line(t.Addr), out)
			return err
		},
	}
	p.flags(cmd, false)
	f := cmd.Flags()
	f.Var(&life, "valid", "for how long it is good (default 720h)")
	f.StringVar(&b.Role, "role", "", "the most that it may, below what its user may")
	f.StringVar(&b.Note, "note", "", "what it is for, for wray token list")
	f.StringVar(&out, "out", "", "write it to this `FILE`, which is not there yet, and do not print it")
	f.BoolVar(&p.asJSON, "json", false, "print one JSON object")
	return cmd
}

func newTokenList() *cobra.Command {
	var p peopleFlags
	var user string
	cmd := &cobra.Command{
		Use: "list", Short: "List tokens, which are not shown", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l clientwire.UserTokens
			if err := p.ask(cmd, clientwire.KindTokenList, clientwire.PeopleBody{Tenant: p.tenant, All: p.all, User: user}, &l); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if p.asJSON {
				return printLines(out, l.Tokens)
			}
			w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "TENANT\tUSER\tTOKEN\tROLE\tUNTIL\tLAST USED\tNOTE")
			for i := range l.Tokens {
				t := &l.Tokens[i]
				role, until := t.Role, date(t.Expires)
				if role == "" {
					role = "its user's"
				}
				if t.Expires <= time.Now().UnixMilli() {
					until += ", expired"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", line(t.Tenant), line(t.User), line(t.ID), line(role), until, date(t.Used), line(t.Note))
			}
			return w.Flush()
		},
	}
	p.flags(cmd, true)
	cmd.Flags().StringVar(&user, "user", "", "list those of this user alone")
	return cmd
}

func newTokenRevoke() *cobra.Command {
	var p peopleFlags
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "Make a token worthless", Args: cobra.ExactArgs(1),
		Long: `Revoke makes a token worthless, everywhere at once, and ends what is done with it then.
The ID is the second part of the token, and is no secret.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.ask(cmd, clientwire.KindTokenRevoke, clientwire.PeopleBody{Token: args[0], Tenant: p.tenant}, &struct{}{})
		},
	}
	p.flags(cmd, false)
	return cmd
}
