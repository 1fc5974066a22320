package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/api"
)

// nomadJob holds a job to the types of Nomad's client, whose tags name the
// attributes and blocks of the language. Nomad's own reader of jobs has a
// licence that forbids its use here.
func nomadJob(file string, b []byte) error {
	f, diags := hclsyntax.ParseConfig(b, file, hcl.InitialPos)
	if diags.HasErrors() {
		return diags
	}
	var errs []error
	jobs := 0
	body := f.Body.(*hclsyntax.Body)
	for name := range body.Attributes {
		errs = append(errs, fmt.Errorf("%s: no attribute of a file", name))
	}
	for _, block := range body.Blocks {
		switch block.Type {
		case "variable", "locals":
		case "job":
			jobs++
			errs = append(errs, holds(block, reflect.TypeFor[api.Job]()))
		default:
			errs = append(errs, fmt.Errorf("%v: no block %s in a file", block.DefRange(), block.Type))
		}
	}
	if jobs != 1 {
		errs = append(errs, fmt.Errorf("%d jobs", jobs))
	}
	return errors.Join(errs...)
}

// holds says what a block has that its type does not.
func holds(block *hclsyntax.Block, t reflect.Type) error {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() == reflect.Map { // such as env and config: any keys
		return nil
	}
	if t.Kind() != reflect.Struct {
		return fmt.Errorf("%v: %s is no block", block.DefRange(), block.Type)
	}
	fields := map[string]reflect.Type{}
	blocks := map[string]bool{}
	var collect func(reflect.Type)
	collect = func(t reflect.Type) {
		for i := range t.NumField() {
			name, kind, _ := strings.Cut(t.Field(i).Tag.Get("hcl"), ",")
			if t.Field(i).Anonymous && name == "" {
				collect(t.Field(i).Type)
				continue
			}
			if name != "" && kind != "label" {
				fields[name], blocks[name] = t.Field(i).Type, kind == "block"
			}
		}
	}
	collect(t)
	if block.Type == "network" {
		fields["port"], blocks["port"] = reflect.TypeFor[api.Port](), true
	}
	var errs []error
	for name, a := range block.Body.Attributes {
		if fields[name] == nil || blocks[name] {
			errs = append(errs, fmt.Errorf("%v: %s has no attribute %s; it has %v", a.SrcRange, block.Type, name, names(fields)))
		}
	}
	for _, b := range block.Body.Blocks {
		if t := fields[b.Type]; t == nil {
			errs = append(errs, fmt.Errorf("%v: %s has no block %s; it has %v", b.DefRange(), block.Type, b.Type, names(fields)))
		} else if err := holds(b, t); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func names(fields map[string]reflect.Type) (list []string) {
	for name := range fields {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
