package access

import (
	"fmt"
	"strconv"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// Action is what something that can be called does, as the audit log names it.
type Action string

// The actions.
const (
	NodeJoin    Action = "node.join"     // get a first certificate, for a join token
	NodeHead    Action = "node.head"     // become a head, which has the authority
	NodeTalk    Action = "node.talk"     // what nodes say to each other
	JobSubmit   Action = "job.submit"    // run code
	JobRead     Action = "job.read"      // list jobs, see one, read what it printed
	JobStop     Action = "job.stop"      // end a job
	NodeRead    Action = "node.read"     // what a node holds and knows
	NodeOperate Action = "node.operate"  // drain, remove, rekey nodes
	NodeInvite  Action = "node.invite"   // make join tokens, and credentials of operators
	TenantRead  Action = "tenant.read"   // list tenants and their quotas
	TenantWrite Action = "tenant.manage" // make, change and remove tenants, and lift quarantines
	PeopleRead  Action = "people.read"   // list users and tokens
	PeopleWrite Action = "people.manage" // make, change and remove users and tokens
)

// Governs reports whether an action changes who may do what, or which nodes there
// are: it is not done where it cannot be recorded.
func (a Action) Governs() bool {
	switch a {
	case NodeJoin, NodeHead, NodeOperate, NodeInvite, TenantWrite, PeopleWrite:
		return true
	}
	return false
}

// Rule says who may call something.
type Rule struct {
	Action Action
	Joiner bool // machines that join may
	Node   bool // nodes may
	Least  Role // persons may, from this role on; NoRole: none may
	// Cluster says that it concerns the whole cluster: of persons only those of
	// tenant Home may.
	Cluster bool
	// New says that it begins or adds something, which a tenant that is disabled
	// does not take: its people see what is there, stop it and take away.
	New bool
}

// table is all that can be called. A method of gRPC stands in it by its full
// name, a route of HTTP by method and pattern, a message at the Unix socket by
// Message. Tests hold each to what is served.
var table = map[string]Rule{
	"/wray.node.v1.Join/Join":      {Action: NodeJoin, Joiner: true},
	"/wray.node.v1.Identity/Renew": {Action: NodeTalk, Node: true},
	"/wray.node.v1.Peer/Session":   {Action: NodeTalk, Node: true},
	"/wray.node.v1.Blob/Get":       {Action: NodeTalk, Node: true},

	"/wray.heads.v1.Heads/Enlist": {Action: NodeTalk, Node: true},

	"/wray.control.v1.Control/Get":       {Action: NodeTalk, Node: true},
	"/wray.control.v1.Control/List":      {Action: NodeTalk, Node: true},
	"/wray.control.v1.Control/Commit":    {Action: NodeTalk, Node: true},
	"/wray.control.v1.Control/Watch":     {Action: NodeTalk, Node: true},
	"/wray.control.v1.Control/Grant":     {Action: NodeTalk, Node: true},
	"/wray.control.v1.Control/KeepAlive": {Action: NodeTalk, Node: true},
	"/wray.control.v1.Control/Revoke":    {Action: NodeTalk, Node: true},

	// Of jobs nodes ask each other about what a person has asked one of them.
	"/wray.jobs.v1.Jobs/Submit": {Action: JobSubmit, Least: Developer, New: true},
	"/wray.jobs.v1.Jobs/List":   {Action: JobRead, Least: Viewer},
	"/wray.jobs.v1.Jobs/Get":    {Action: JobRead, Least: Viewer, Node: true},
	"/wray.jobs.v1.Jobs/Stop":   {Action: JobStop, Least: Developer, Node: true},
	"/wray.jobs.v1.Jobs/Logs":   {Action: JobRead, Least: Viewer, Node: true},

	"POST /v1/jobs":           {Action: JobSubmit, Least: Developer, New: true},
	"GET /v1/jobs":            {Action: JobRead, Least: Viewer},
	"GET /v1/jobs/{id}":       {Action: JobRead, Least: Viewer},
	"POST /v1/jobs/{id}/stop": {Action: JobStop, Least: Developer},
	"GET /v1/jobs/{id}/logs":  {Action: JobRead, Least: Viewer},

	"GET /v1/users":            {Action: PeopleRead, Least: Admin},
	"POST /v1/users":           {Action: PeopleWrite, Least: Admin, New: true},
	"PATCH /v1/users/{name}":   {Action: PeopleWrite, Least: Admin},
	"DELETE /v1/users/{name}":  {Action: PeopleWrite, Least: Admin},
	"GET /v1/tokens":           {Action: PeopleRead, Least: Admin},
	"POST /v1/tokens":          {Action: PeopleWrite, Least: Admin, New: true},
	"DELETE /v1/tokens/{name}": {Action: PeopleWrite, Least: Admin},

	Message(clientwire.KindRun):         {Action: JobSubmit, Least: Developer, New: true},
	Message(clientwire.KindMemory):      {Action: NodeRead, Least: Viewer},
	Message(clientwire.KindStats):       {Action: NodeRead, Least: Viewer},
	Message(clientwire.KindStatus):      {Action: NodeRead, Least: Viewer},
	Message(clientwire.KindExplain):     {Action: NodeRead, Least: Viewer},
	Message(clientwire.KindPing):        {Action: NodeRead, Least: Viewer},
	Message(clientwire.KindJobSubmit):   {Action: JobSubmit, Least: Developer, New: true},
	Message(clientwire.KindJobs):        {Action: JobRead, Least: Viewer},
	Message(clientwire.KindJob):         {Action: JobRead, Least: Viewer},
	Message(clientwire.KindJobStop):     {Action: JobStop, Least: Developer},
	Message(clientwire.KindJobLogs):     {Action: JobRead, Least: Viewer},
	Message(clientwire.KindUserList):    {Action: PeopleRead, Least: Admin},
	Message(clientwire.KindUserAdd):     {Action: PeopleWrite, Least: Admin, New: true},
	Message(clientwire.KindUserSet):     {Action: PeopleWrite, Least: Admin},
	Message(clientwire.KindUserRemove):  {Action: PeopleWrite, Least: Admin},
	Message(clientwire.KindTokenList):   {Action: PeopleRead, Least: Admin},
	Message(clientwire.KindTokenCreate): {Action: PeopleWrite, Least: Admin, New: true},
	Message(clientwire.KindTokenRevoke): {Action: PeopleWrite, Least: Admin},

	Message(clientwire.KindToken):    {Action: NodeInvite, Least: Admin, Cluster: true},
	Message(clientwire.KindOperator): {Action: NodeInvite, Least: Admin, Cluster: true},
	Message(clientwire.KindDrain):    {Action: NodeOperate, Least: Operator, Cluster: true},
	Message(clientwire.KindRemove):   {Action: NodeOperate, Least: Operator, Cluster: true},
	Message(clientwire.KindRekey):    {Action: NodeOperate, Least: Operator, Cluster: true},

	Message(clientwire.KindTenants):    {Action: TenantRead, Least: Operator, Cluster: true},
	Message(clientwire.KindTenantSet):  {Action: TenantWrite, Least: Admin, Cluster: true},
	Message(clientwire.KindTenantLift): {Action: TenantWrite, Least: Operator, Cluster: true},
}

// Message is how a message at the Unix socket stands in the table.
func Message(kind link.Kind) string { return "unix " + strconv.Itoa(int(kind)) }

// Find returns the rule of what is called; false where there is none.
func Find(call string) (Rule, bool) {
	r, ok := table[call]
	return r, ok
}

// Calls are all that stand in the table, in no order.
func Calls() []string {
	out := make([]string, 0, len(table))
	for c := range table {
		out = append(out, c)
	}
	return out
}

// Decide says whether p may call something, and returns its rule. The error
// matches ErrUnknown where it is not known who calls, else ErrDenied.
func Decide(p Principal, call string) (Rule, error) {
	r, known := table[call]
	switch {
	case p.Kind == Nobody:
		return Rule{}, ErrUnknown
	case !known:
	case p.Kind == Joiner && r.Joiner, p.Kind == Node && r.Node:
		return r, nil
	case p.Person() && r.Least != NoRole && p.Role >= r.Least && p.Role <= Admin && p.Tenant != "" && (!r.Cluster || p.Tenant == Home):
		if r.New && p.Paused {
			return r, denial{&wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("tenant %s takes nothing new: it is disabled", p.Tenant),
				Hint: "what it has is seen and stopped as before; an operator of the cluster can enable it: wray tenant enable " + p.Tenant}}
		}
		return r, nil
	}
	return r, refused(p, call)
}

// denial is an error for who calls: it matches ErrDenied, and is a *wray.Error.
type denial struct{ why *wray.Error }

func (d denial) Error() string   { return d.why.Error() }
func (d denial) Unwrap() []error { return []error{ErrDenied, d.why} }

func refused(p Principal, call string) error {
	e := &wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("%.100q is not for who calls", call)}
	if p.Person() {
		e.Hint = fmt.Sprintf("%s has the role %s: ask an admin", p, p.Role)
	}
	return denial{e}
}
