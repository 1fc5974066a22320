package objectstore_test

import (
	"fmt"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// A task's result is declared when the task is submitted, watched by who needs
// it, and sealed when the task returns.
func Example() {
	store, err := objectstore.New(objectstore.Config{Capacity: 64 << 20})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	result, err := store.Declare(wray.ID{Owner: 1, Seq: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	result.Watch(objectstore.WatcherFunc(func(o *objectstore.Object) {
		fmt.Printf("%v: %s\n", o.State(), o.Bytes())
	}))

	// The guest that submitted the task knows the result as a handle.
	table := objectstore.NewHandles(1000)
	handle, err := table.Add(result) // takes over the reference
	if err != nil {
		fmt.Println(err)
		return
	}

	if err := result.TrySeal(objectstore.Value{Encoding: abi.EncodingRaw, Payload: []byte("done")}); err != nil {
		fmt.Println(err)
	}
	o, _ := table.Object(handle)
	fmt.Println(o.Info().Len, "bytes by handle", handle)
	table.Drop(handle)
	fmt.Println(store.Stats().Objects, "objects")
	// Output:
	// sealed: done
	// 4 bytes by handle 1
	// 0 objects
}
