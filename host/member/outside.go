package member

import (
	"context"
	"errors"
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
)

// clusterRecord says whose a control state is. It is named self.
type clusterRecord struct {
	ID string `cbor:"1,keyasint"`
}

// ownCluster holds that a control state is this cluster's, and takes one that is
// nobody's yet. A head that came to others, and has an etcd that runs elsewhere,
// finds theirs: further says so.
func ownCluster(ctx context.Context, s control.Store, id string, further bool) error {
	table := control.NewTable[clusterRecord](s, control.KindCluster, 1)
	for {
		e, err := table.Get(ctx, control.Cluster, "self")
		switch {
		case err == nil && e.Value.ID == id:
			return nil
		case err == nil:
			return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("the control state is another cluster's, %s", e.Value.ID),
				Hint: "give this cluster another prefix or another etcd; to be one more head of that cluster, give the address of one and a token"}
		case !errors.Is(err, control.ErrNotFound):
			return fmt.Errorf("read whose the control state is: %w", err)
		case further:
			return &wray.Error{Code: wray.CodeBadArgument, Message: "the control state is not the one of the cluster that this head came to",
				Hint: "give it the etcd, and the prefix, that the other heads have"}
		}
		if _, err := table.Create(ctx, control.Cluster, "self", clusterRecord{id}); !errors.Is(err, control.ErrConflict) {
			return err
		}
	}
}

// errKeeper says that a further head is to keep the control state in another way
// than those that there are.
func errKeeper(outside bool) error {
	if outside {
		return &wray.Error{Code: wray.CodeBadArgument, Message: "the heads of this cluster keep its control state themselves, and this one was given an etcd",
			Hint: "start it without --etcd"}
	}
	return &wray.Error{Code: wray.CodeBadArgument, Message: "this cluster keeps its control state in an etcd of its own",
		Hint: "start this head with --etcd, as the others"}
}
