// Says what Grafana's own types have against a dashboard: fields that they do not know, in its panels and queries too,
// fields that are missing, and words that are none of theirs.
//
//	dashboard TYPES FILE
//
// TYPES is the folder with the source of github.com/grafana/grafana-foundation-sdk/go.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: dashboard TYPES FILE")
		os.Exit(2)
	}
	if err := check(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(types, file string) error {
	words, err := readWords(types)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	// Without them, options of panels and queries would be taken as they are.
	plugins.RegisterDefaultPlugins()
	var found dashboard.Dashboard
	if err := found.UnmarshalJSONStrict(text); err != nil {
		return err
	}
	return errors.Join(found.Validate(), words.check(found), checkFieldConfigs(text), checkKinds(found))
}

// checkFieldConfigs is strict where UnmarshalJSONStrict of a panel is not.
func checkFieldConfigs(text []byte) error {
	var raw struct {
		Panels []struct {
			FieldConfig json.RawMessage `json:"fieldConfig"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	var wrong []error
	for index, panel := range raw.Panels {
		var config dashboard.FieldConfigSource
		if err := config.UnmarshalJSONStrict(panel.FieldConfig); err != nil {
			wrong = append(wrong, fmt.Errorf("panels[%d].fieldConfig: %w", index, err))
		}
	}
	return errors.Join(wrong...)
}

// checkKinds finds panels and queries of kinds that Grafana does not bring, which would be taken as they are.
func checkKinds(found dashboard.Dashboard) error {
	var wrong []error
	for index, either := range found.Panels {
		panel := either.Panel
		if panel == nil {
			continue
		}
		if _, isKnown := cog.ConfigForPanelcfgVariant(panel.Type); !isKnown {
			wrong = append(wrong, fmt.Errorf("panels[%d].type: there is no panel %q", index, panel.Type))
		}
		for number, target := range panel.Targets {
			if _, isUnknown := target.(variants.UnknownDataquery); isUnknown {
				wrong = append(wrong, fmt.Errorf("panels[%d].targets[%d].datasource: of an unknown type", index, number))
			}
		}
	}
	return errors.Join(wrong...)
}
