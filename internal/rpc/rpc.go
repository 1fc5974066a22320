// Package rpc is how nodes of a cluster reach each other: one port, TLS, and
// gRPC for what is called. It is the only package that sees gRPC and what is
// generated for it.
//
// # One port
//
// A connection that begins with a TLS handshake is one of a node or an operator,
// with a certificate, of a user, without, or of a machine that joins, under the
// server name auth.JoinName. The application protocol (ALPN) that it names says what it is
// for: gRPC, HTTP/1.1 (jobs as JSON, where both are offered), bulk data (package
// bulk), or what else Options.Protocols has. Anything that is no TLS goes to
// Options.Plain, as gossip does, which has keys of its own.
//
// # Who may call
//
// Each method stands in the table of package access with who may call it. One
// that does not is refused, whoever calls. Machines that join are served by a
// gRPC server of their own that has no method but Join, people (operators with a
// certificate, and users with a token, which each call shows) by one that has
// jobs alone.
//
// Calls may be repeated after a lost reply.
package rpc

//go:generate go run -C ../tools/protogen . -dir ../../rpc -module github.com/wray-project/wray/internal/rpc node.proto control.proto heads.proto jobs.proto

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/rpc/internal/nodepb"
)

// The application protocols of the port.
const (
	protoGRPC = "h2"
	protoJoin = "wray-join/1"
	protoHTTP = "http/1.1" // jobs, as JSON
)

// Bounds.
const (
	// MaxFrame is the most bytes of a frame of a session.
	MaxFrame = 5 << 20
	// maxJoin is the most bytes of what a machine without a certificate sends.
	maxJoin = 16 << 10
	// blobChunk is how many bytes of a blob go in one message.
	blobChunk = 256 << 10

	// handshakeTime is how long a handshake may take.
	handshakeTime = 10 * time.Second
	// maxHandshakes is how many are under way at one time, and eachHandshakes
	// those of one address. Addresses that are familiar have as many again.
	maxHandshakes, eachHandshakes = 512, 64
	// patience is how long who says nothing has before he makes room sooner than
	// others.
	patience = 100 * time.Millisecond
	// maxJoining is how many connections of machines that join are open.
	maxJoining, eachJoining = 64, 16
	// maxPeople is how many connections are open of whom is known at each call
	// alone, by a token.
	maxPeople, eachPeople = 1024, 128
	// maxKnown is how many connections are open of people who are known, eachKnown
	// those of one tenant or of an operator with a certificate, and sureKnown how
	// many each may have whatever others do.
	maxKnown, eachKnown, sureKnown = 4096, 512, 32
	// maxPlain is how many connections are open that do not begin with TLS, each
	// for plainTime at most.
	maxPlain, eachPlain = 256, 64
	plainTime           = time.Minute
	// grace is how long a connection may take before another has its place, once
	// its handshake is done or where it speaks no TLS.
	grace = time.Second
)

// ErrUnavailable says that the other node was not reached, or that the
// connection was lost: what was asked for may have happened.
var ErrUnavailable = errors.New("node is not reached")

// ErrNoHead says that the node that was asked does not sign certificates.
var ErrNoHead = errors.New("that node is no head")

// refusals pairs the errors of auth with what stands for them in a reply.
var refusals = []struct {
	err  error
	code nodepb.Refusal
}{
	{auth.ErrTokenExpired, nodepb.Refusal_REFUSAL_TOKEN_EXPIRED},
	{auth.ErrTokenUsed, nodepb.Refusal_REFUSAL_TOKEN_USED},
	{auth.ErrToken, nodepb.Refusal_REFUSAL_TOKEN},
	{auth.ErrRequest, nodepb.Refusal_REFUSAL_REQUEST},
	{auth.ErrNameTaken, nodepb.Refusal_REFUSAL_NAME_TAKEN},
	{auth.ErrRevoked, nodepb.Refusal_REFUSAL_REVOKED},
	{ErrNoHead, nodepb.Refusal_REFUSAL_NO_HEAD},
}

// remoteError is an error of auth that another node had.
type remoteError struct {
	is  error
	why string
}

func (e *remoteError) Error() string        { return e.why }
func (e *remoteError) Is(target error) bool { return target == e.is }

// grantReply is the reply to a request for a certificate. Errors that are no
// refusal are the caller's to try again, and tell a stranger nothing.
func grantReply(g auth.Grant, err error) (*nodepb.CertificateReply, error) {
	if err == nil {
		return &nodepb.CertificateReply{Certificate: g.Certificate, Authority: g.Authority}, nil
	}
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return &nodepb.CertificateReply{Refusal: r.code, Why: err.Error()}, nil
		}
	}
	return nil, status.Error(codes.Unavailable, "the control state does not answer; try again")
}

// grantOf reads such a reply.
func grantOf(reply *nodepb.CertificateReply, err error) (auth.Grant, error) {
	if err != nil {
		return auth.Grant{}, callError(err)
	}
	if reply.Refusal == nodepb.Refusal_REFUSAL_UNSPECIFIED {
		return auth.Grant{Certificate: reply.Certificate, Authority: reply.Authority}, nil
	}
	for _, r := range refusals {
		if reply.Refusal == r.code {
			return auth.Grant{}, &remoteError{is: r.err, why: reply.Why}
		}
	}
	return auth.Grant{}, errors.New("refused, for a reason that only a newer version knows: " + reply.Why)
}

// callError gives an error of gRPC a meaning: the end of the context, or that
// the other was not reached.
func callError(err error) error {
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.Canceled:
		return errors.Join(context.Canceled, err)
	case codes.DeadlineExceeded:
		return errors.Join(context.DeadlineExceeded, err)
	case codes.Unavailable:
		return errors.Join(ErrUnavailable, err)
	}
	return err
}
