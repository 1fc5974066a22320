package rpc

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/testenv"
)

// TestBombs holds that what is small on the wire and large in memory is refused:
// programs that have etcd in them read gzip, whether or not anybody wants that.
func TestBombs(t *testing.T) {
	w := newWorld(t, Options{})
	_, g := w.node("a")
	joiner, err := grpc.NewClient("passthrough:///"+w.addr(), grpc.WithTransportCredentials(joinCreds{
		auth.JoinConfig(w.token(auth.TokenOptions{}), protoJoin, time.Now, func(*auth.Trust) {})}))
	if err != nil {
		t.Fatal(err)
	}
	defer joiner.Close()
	operator, err := NewOperator(w.operator("o"), w.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	bomb := func(size int) *emptypb.Empty {
		m := &emptypb.Empty{} // 1,000 is the number of no field
		m.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, size)))
		return m
	}
	large, small := bomb(8<<20), bomb(1<<10)
	taken, tried := 0, 0
	callers := map[*grpc.Server]*grpc.ClientConn{w.srv.nodes: w.client(g).conn, w.srv.joiners: joiner, w.srv.operators: operator.conn}
	for server, c := range callers {
		for service, info := range server.GetServiceInfo() {
			for _, m := range info.Methods {
				tried++
				taken += sendBombs(t, c, "/"+service+"/"+m.Name, small, large)
			}
		}
	}
	testenv.Bar(t, 15, taken, fmt.Sprintf("of %d methods that nodes serve take 8 MiB that came as 8 KiB", tried), taken == 0 && tried > 15)
}

// sendBombs calls a method with a message that is not large, and with one that
// is. It returns 1 where the large one was taken.
func sendBombs(t *testing.T, c *grpc.ClientConn, method string, small, large *emptypb.Empty) int {
	send := func(m *emptypb.Empty, within time.Duration) codes.Code {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return status.Code(c.Invoke(ctx, method, m, &emptypb.Empty{}, grpc.UseCompressor(gzip.Name), grpc.MaxCallSendMsgSize(128<<20)))
	}
	if got := send(small, 300*time.Millisecond); got == codes.ResourceExhausted {
		t.Errorf("%s: 1 KiB is too much", method)
	}
	if got := send(large, time.Minute); got != codes.ResourceExhausted {
		// A method that reads a stream answers before it has read.
		t.Logf("%s: 8 MiB in 8 KiB: %v", method, got)
		if got == codes.OK {
			return 1
		}
	}
	return 0
}
