package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/clientwire"
	pb "github.com/wray-project/wray/internal/rpc/internal/jobspb"
)

// Jobs is what a node does about jobs for others. Errors are *wray.Error, and
// match ErrNoJob where a job is not there.
type Jobs interface {
	// SubmitJob takes a job, whose modules it reads before it returns. The job
	// goes on when ctx ends.
	SubmitJob(ctx context.Context, from access.Principal, spec clientwire.JobSpec, modules ModuleSource) (clientwire.JobInfo, error)
	Jobs(ctx context.Context, from access.Principal) (clientwire.JobList, error)
	Job(ctx context.Context, from access.Principal, id string) (clientwire.JobInfo, error)
	StopJob(ctx context.Context, from access.Principal, id string) (clientwire.JobInfo, error)
	// JobLogs returns a part of what a job printed; where there is nothing yet and
	// wait is set, it waits for more or for the job's end.
	JobLogs(ctx context.Context, from access.Principal, id string, offset int64, wait bool) (clientwire.JobLogs, error)
}

// ErrNoJob says that a job is not there.
var ErrNoJob = errors.New("there is no such job")

// ModuleSource is the modules of a job, as they come: the driver's first.
type ModuleSource interface {
	// Next returns the next module, whose content is to be read before Next is
	// called again, or io.EOF.
	Next() (name string, content io.Reader, err error)
}

// Bounds.
const (
	// uploadTime is how long the modules of a job may take to come.
	uploadTime = 15 * time.Minute
	// StallBytes are to come in each StallTime of an upload, whatever carries it:
	// what has come takes of the memory for all uploads.
	StallTime  = 30 * time.Second
	StallBytes = 64 << 10
	// maxJobContent is the bytes of a module in one message.
	maxJobContent = 1 << 20
	// maxHTTPBody is the bytes of a request over HTTP: what a job's modules may
	// have, and their form.
	maxHTTPBody = 1<<30 + 4<<20
	// maxJobMessage is the bytes of a message of an operator.
	maxJobMessage = 2 << 20
)

// CheckSpec reports what is wrong with a job's spec that came over the network,
// whatever carried it. Limits are the node's to check.
func CheckSpec(s *clientwire.JobSpec) error {
	for _, e := range s.Env {
		if key, _, ok := strings.Cut(e, "="); !ok || key == "" || strings.ContainsRune(e, 0) {
			return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("the variable %.60q is none", e), Hint: "write KEY=VALUE"}
		}
	}
	for _, a := range s.Args {
		if strings.ContainsRune(a, 0) {
			return wray.Errorf(wray.CodeBadArgument, "the argument %.60q has a zero byte", a)
		}
	}
	return nil
}

// stallTime is StallTime but for tests.
var stallTime = StallTime

// Stalled is the error about an upload of which too little comes.
func Stalled() error {
	return &wray.Error{Code: wray.CodeTimeout, Message: fmt.Sprintf("of the job's modules less than %d bytes came in %v", StallBytes, stallTime),
		Hint: "submit it from where the connection is faster"}
}

type jobsService struct {
	pb.UnsafeJobsServer
	s *Server
}

// ready returns who calls and whom.
func (j jobsService) ready(ctx context.Context) (Jobs, access.Principal, error) {
	id := access.From(ctx)
	if j.s.opt.Jobs == nil {
		return nil, id, status.Error(codes.Unimplemented, "this node takes no jobs")
	}
	return j.s.opt.Jobs, id, nil
}

func (j jobsService) Submit(st grpc.ClientStreamingServer[pb.SubmitRequest, pb.Job]) error {
	jobs, from, err := j.ready(st.Context())
	if err != nil {
		return err
	}
	first, err := st.Recv()
	if err != nil {
		return err
	}
	spec := first.GetSpec()
	if spec == nil {
		return jobFailure(wray.Errorf(wray.CodeBadArgument, "the first message has no spec"))
	}
	asked := specOf(spec)
	if err := CheckSpec(&asked); err != nil {
		return jobFailure(err)
	}
	// What is read is read by others than this goroutine, so that who sends
	// nothing more is given up: the stream ends with this call, and so do they.
	type result struct {
		info clientwire.JobInfo
		err  error
	}
	done := make(chan result, 1)
	sent := &sentModules{st: st}
	go func() {
		info, err := jobs.SubmitJob(st.Context(), from, asked, sent)
		done <- result{info, err}
	}()
	late := time.NewTimer(uploadTime)
	defer late.Stop()
	pace := time.NewTicker(stallTime)
	defer pace.Stop()
	for before := int64(0); ; {
		select {
		case r := <-done:
			if r.err != nil {
				return jobFailure(r.err)
			}
			return st.SendAndClose(jobProto(&r.info))
		case <-late.C:
			return jobFailure(wray.Errorf(wray.CodeTimeout, "the job's modules did not come within %v", uploadTime))
		case <-pace.C:
			now := sent.came.Load()
			if now-before < StallBytes && !sent.ended.Load() {
				return jobFailure(Stalled())
			}
			before = now
		}
	}
}

// sentModules is a ModuleSource of a stream.
type sentModules struct {
	st   grpc.ClientStreamingServer[pb.SubmitRequest, pb.Job]
	next *string // the name of a module that has begun
	left []byte
	err  error

	came  atomic.Int64 // bytes of content
	ended atomic.Bool  // no more comes
}

func (m *sentModules) Next() (string, io.Reader, error) {
	for m.next == nil && m.err == nil { // what nobody has read goes by
		m.receive()
	}
	if m.next == nil {
		return "", nil, m.err
	}
	name := *m.next
	m.next = nil
	return name, sentModule{m}, nil
}

func (m *sentModules) receive() {
	r, err := m.st.Recv()
	if err != nil {
		m.ended.Store(true)
		m.err = err
		return
	}
	switch part := r.Part.(type) {
	case *pb.SubmitRequest_Module:
		m.next = &part.Module
	case *pb.SubmitRequest_Content:
		m.left = part.Content
		m.came.Add(int64(len(part.Content)))
		if len(part.Content) > maxJobContent {
			m.err = wray.Errorf(wray.CodeBadArgument, "a part of a module has %d bytes, at most %d are taken", len(part.Content), maxJobContent)
		}
	default:
		m.err = wray.Errorf(wray.CodeBadArgument, "a message has neither a module's name nor bytes of it")
	}
}

// sentModule is the content of the module that has begun.
type sentModule struct{ m *sentModules }

func (r sentModule) Read(p []byte) (int, error) {
	m := r.m
	for len(m.left) == 0 {
		if m.next != nil {
			return 0, io.EOF
		}
		if m.err != nil {
			return 0, m.err
		}
		m.receive()
	}
	n := copy(p, m.left)
	m.left = m.left[n:]
	return n, nil
}

func (j jobsService) List(ctx context.Context, _ *pb.ListRequest) (*pb.ListReply, error) {
	jobs, from, err := j.ready(ctx)
	if err != nil {
		return nil, err
	}
	list, err := jobs.Jobs(ctx, from)
	if err != nil {
		return nil, jobFailure(err)
	}
	reply := &pb.ListReply{Partial: list.Partial}
	for i := range list.Jobs {
		reply.Jobs = append(reply.Jobs, jobProto(&list.Jobs[i]))
	}
	return reply, nil
}

func (j jobsService) Get(ctx context.Context, req *pb.JobRequest) (*pb.Job, error) {
	return j.one(ctx, req, Jobs.Job)
}

func (j jobsService) Stop(ctx context.Context, req *pb.JobRequest) (*pb.Job, error) {
	return j.one(ctx, req, Jobs.StopJob)
}

func (j jobsService) one(ctx context.Context, req *pb.JobRequest, ask func(Jobs, context.Context, access.Principal, string) (clientwire.JobInfo, error)) (*pb.Job, error) {
	jobs, from, err := j.ready(ctx)
	if err != nil {
		return nil, err
	}
	info, err := ask(jobs, ctx, from, req.Id)
	if err != nil {
		return nil, jobFailure(err)
	}
	return jobProto(&info), nil
}

func (j jobsService) Logs(req *pb.LogsRequest, st grpc.ServerStreamingServer[pb.LogsReply]) error {
	jobs, from, err := j.ready(st.Context())
	if err != nil {
		return err
	}
	for offset := req.Offset; ; {
		part, err := jobs.JobLogs(st.Context(), from, req.Id, offset, req.Follow)
		if err != nil {
			return jobFailure(err)
		}
		reply := &pb.LogsReply{Next: part.Next, Dropped: part.Dropped, End: part.End}
		for _, o := range part.Parts {
			reply.Parts = append(reply.Parts, &pb.Output{TimeMs: o.Time, Task: o.Task, Stream: uint32(o.Stream), Data: o.Data})
		}
		if err := st.Send(reply); err != nil {
			return err
		}
		if part.End || !req.Follow && len(part.Parts) == 0 {
			return nil
		}
		offset = part.Next
	}
}

// jobFailure is the status of an error.
func jobFailure(err error) error {
	f := &pb.Failure{Code: int32(wray.CodeInternal), Message: err.Error()}
	if e := (*wray.Error)(nil); errors.As(err, &e) {
		f.Code, f.Hint = int32(e.Code), e.Hint
	}
	f.Message, f.Hint = clip(f.Message), clip(f.Hint)
	code := codes.Internal
	switch {
	case errors.Is(err, ErrNoJob):
		code = codes.NotFound
	case errors.Is(err, wray.ErrBadArgument), errors.Is(err, wray.ErrInvalidModule):
		code = codes.InvalidArgument
	case errors.Is(err, wray.ErrLimitExceeded), errors.Is(err, wray.ErrStoreFull):
		code = codes.ResourceExhausted
	case errors.Is(err, wray.ErrDenied):
		code = codes.PermissionDenied
	case errors.Is(err, wray.ErrWorkerDied):
		code = codes.Unavailable
	case errors.Is(err, wray.ErrCanceled), errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, wray.ErrTimeout):
		code = codes.DeadlineExceeded
	}
	st, derr := status.New(code, f.Message).WithDetails(f)
	if derr != nil {
		return status.Error(code, f.Message)
	}
	return st.Err()
}

// clip cuts a text down to what a status takes: it travels in a header.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 4<<10)], "?") }

// jobError reads such a status.
func jobError(err error) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	for _, d := range st.Details() {
		f, ok := d.(*pb.Failure)
		if !ok {
			continue
		}
		e := &wray.Error{Code: wray.Code(f.Code), Hint: f.Hint}
		e.Message = strings.TrimPrefix(f.Message, e.Code.String()+": ")
		if st.Code() == codes.NotFound {
			return errors.Join(ErrNoJob, e)
		}
		return e
	}
	if st.Code() == codes.Unauthenticated {
		return errors.Join(access.ErrUnknown, &wray.Error{Code: wray.CodeDenied, Message: "the node does not know who asks",
			Hint: "the token has expired, was revoked, or is of another cluster: have another made, and log in again with wray login"})
	}
	return callError(err)
}

func specOf(s *pb.JobSpec) clientwire.JobSpec {
	return clientwire.JobSpec{Args: s.Args, Env: s.Env, Memory: s.Memory, Stack: s.Stack, Files: s.MaxFiles, Handles: s.MaxHandles,
		Windows: s.MaxWindows, LogRate: s.LogRate, Timeout: s.TimeoutMs}
}

func jobProto(i *clientwire.JobInfo) *pb.Job {
	return &pb.Job{Id: i.ID, Name: valid(i.Name), Args: valids(i.Args), Node: i.Node, State: i.State, SubmittedMs: i.Submitted, StartedMs: i.Started,
		EndedMs: i.Ended, ExitCode: int64(i.ExitCode), Error: valid(i.Error), Hint: valid(i.Hint), Trace: valid(i.Trace), Note: valid(i.Note), By: i.By}
}

// valid is a text as proto3 takes it.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func valids(list []string) (out []string) {
	for _, s := range list {
		out = append(out, valid(s))
	}
	return out
}

func jobOf(j *pb.Job) clientwire.JobInfo {
	return clientwire.JobInfo{ID: j.Id, Name: j.Name, Args: j.Args, Node: j.Node, State: j.State, Submitted: j.SubmittedMs, Started: j.StartedMs,
		Ended: j.EndedMs, ExitCode: int(max(math.MinInt32, min(j.ExitCode, math.MaxInt32))), Error: j.Error, Hint: j.Hint, Trace: j.Trace, Note: j.Note, By: j.By}
}

// NewOperator returns a client of the node at an address HOST:PORT, which may be
// any of the operator's cluster.
func NewOperator(o *auth.Operator, addr string) (*Client, error) {
	c, err := grpc.NewClient("passthrough:///"+addr, clientOptions(
		grpc.WithTransportCredentials(joinCreds{o.ClientConfig(protoGRPC)}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxFrame+1<<10)),
	)...)
	if err != nil {
		return nil, fmt.Errorf("node at %s: %w", addr, err)
	}
	return &Client{name: addr, conn: c}, nil
}

// NewUser returns a client of the node at an address HOST:PORT, which may be any
// of the cluster that the token is for: it names its authority. Each call shows
// the token, and no other cluster sees it.
func NewUser(token access.Secret, addr string) (*Client, error) {
	pin, ok := token.Pin()
	if !ok {
		return nil, &wray.Error{Code: wray.CodeBadArgument, Message: "the token names no cluster", Hint: "have one made by a node that is in a cluster: wray token create"}
	}
	c, err := grpc.NewClient("passthrough:///"+addr, clientOptions(
		grpc.WithTransportCredentials(joinCreds{auth.PeopleConfig(pin, protoGRPC, nil)}),
		grpc.WithPerRPCCredentials(bearer{token}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxFrame+1<<10)),
	)...)
	if err != nil {
		return nil, fmt.Errorf("node at %s: %w", addr, err)
	}
	return &Client{name: addr, conn: c}, nil
}

// bearer shows a token at each call, over TLS alone.
type bearer struct{ token access.Secret }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token.Reveal()}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// SubmitJob submits a job to the node. It is not tried again: a reply that is
// lost leaves open whether the job runs, which Jobs tells.
func (c *Client) SubmitJob(ctx context.Context, spec clientwire.JobSpec, modules ModuleSource) (info clientwire.JobInfo, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := pb.NewJobsClient(c.conn).Submit(ctx)
	if err != nil {
		return info, jobError(err)
	}
	send := func(r *pb.SubmitRequest) error { return st.Send(r) }
	err = send(&pb.SubmitRequest{Part: &pb.SubmitRequest_Spec{Spec: &pb.JobSpec{Args: spec.Args, Env: spec.Env, Memory: spec.Memory, Stack: spec.Stack,
		MaxFiles: spec.Files, MaxHandles: spec.Handles, MaxWindows: spec.Windows, LogRate: spec.LogRate, TimeoutMs: spec.Timeout}}})
	buf := make([]byte, blobChunk)
	for err == nil {
		name, content, nerr := modules.Next()
		if nerr == io.EOF {
			break
		}
		if nerr != nil {
			return info, nerr
		}
		err = send(&pb.SubmitRequest{Part: &pb.SubmitRequest_Module{Module: name}})
		for err == nil {
			n, rerr := io.ReadFull(content, buf)
			if n > 0 {
				// gRPC has encoded the message when Send returns.
				err = send(&pb.SubmitRequest{Part: &pb.SubmitRequest_Content{Content: buf[:n]}})
			}
			if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
				break
			}
			if rerr != nil {
				return info, rerr
			}
		}
	}
	if err != nil && err != io.EOF { // at the end of the stream the reply says why
		return info, jobError(err)
	}
	j, err := st.CloseAndRecv()
	if err != nil {
		return info, jobError(err)
	}
	return jobOf(j), nil
}

// Jobs lists the jobs that the node knows of.
func (c *Client) Jobs(ctx context.Context) (list clientwire.JobList, err error) {
	r, err := pb.NewJobsClient(c.conn).List(ctx, &pb.ListRequest{})
	if err != nil {
		return list, jobError(err)
	}
	list.Partial = r.Partial
	for _, j := range r.Jobs {
		list.Jobs = append(list.Jobs, jobOf(j))
	}
	return list, nil
}

// Job asks for one job.
func (c *Client) Job(ctx context.Context, id string) (clientwire.JobInfo, error) {
	return oneJob(pb.NewJobsClient(c.conn).Get(ctx, &pb.JobRequest{Id: id}))
}

// StopJob ends a job.
func (c *Client) StopJob(ctx context.Context, id string) (clientwire.JobInfo, error) {
	return oneJob(pb.NewJobsClient(c.conn).Stop(ctx, &pb.JobRequest{Id: id}))
}

func oneJob(j *pb.Job, err error) (clientwire.JobInfo, error) {
	if err != nil {
		return clientwire.JobInfo{}, jobError(err)
	}
	return jobOf(j), nil
}

// JobLogs asks for a part of what a job printed: see [Jobs].
func (c *Client) JobLogs(ctx context.Context, id string, offset int64, wait bool) (part clientwire.JobLogs, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // after the first reply: the next part is asked for by its offset
	st, err := pb.NewJobsClient(c.conn).Logs(ctx, &pb.LogsRequest{Id: id, Offset: offset, Follow: wait})
	if err != nil {
		return part, jobError(err)
	}
	r, err := st.Recv()
	if err != nil {
		return part, jobError(err)
	}
	part = clientwire.JobLogs{Next: r.Next, Dropped: r.Dropped, End: r.End}
	for _, o := range r.Parts {
		part.Parts = append(part.Parts, clientwire.JobOutput{Time: o.TimeMs, Task: o.Task, Stream: uint8(min(o.Stream, math.MaxUint8)), Data: o.Data})
	}
	return part, nil
}
